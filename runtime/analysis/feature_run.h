// A collection of features from options to a feature store.
#pragma once

#include <filesystem>
#include <optional>

#include "runtime/analysis/circuit_tracer_features.h"
#include "runtime/analysis/feature_sources.h"
#include "runtime/train/run_environment.h"
#include "runtime/train/run_options.h"

namespace tadapt {

struct FeatureRequest {
  const RunOptions& options;       ///< models, corpus format, compute
  std::filesystem::path adapters;  ///< anything load_adapters takes
  std::filesystem::path corpus;    ///< JSONL
  std::filesystem::path out;
  RecordOptions records = {};
  std::int64_t neurons = 0;  ///< of each MLP of base and target too
  NeuronRule neuron_rule = NeuronRule::kPositive;
  std::optional<CircuitTracerFiles> circuit_tracer = {};  ///< below out/circuit-tracer
  std::int64_t batch_tokens = 4096;
  // As CollectionJob has them.
  std::int64_t unit = 64;
  double save_seconds = 600.0, meeting_seconds = 1.0;
};

enum class FeatureOutcome : std::uint8_t { kDone, kStopped };

/// Collects the features of the adapters into out, and neurons into out/neurons-base and out/neurons-target, each a
/// feature store. What is whole already is left as it is, what was interrupted goes on. The same bytes for any rank
/// count, batch size and number of interruptions. Collective. ConfigError when adapters and models do not belong
/// together or a folder holds another collection; DataError when no conversation thinks.
FeatureOutcome collect_features(const FeatureRequest& request, const RunEnvironment& environment);

/// What that would be, printed: conversations, tokens, features, work, memory and disk. Collective.
void describe_features(const FeatureRequest& request, const RunEnvironment& environment);

}  // namespace tadapt

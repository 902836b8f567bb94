// An evaluation from options to its table and JSON.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "runtime/bundle/feature_edit.h"
#include "runtime/eval/faithfulness.h"
#include "runtime/train/run_environment.h"
#include "runtime/train/run_options.h"

namespace tadapt {

struct EvaluationRequest {
  const RunOptions& options;  ///< models, corpus format, compute
  AdapterSource adapters;
  std::filesystem::path corpus;  ///< JSONL
  FaithfulnessOptions::Partial partial = FaithfulnessOptions::Partial::kAll;
};

struct Evaluation {
  nlohmann::ordered_json subject;  ///< step, corpus (hash of its tokens) and the options that decide the numbers
  FaithfulnessReport report;
};

/// Models and a corpus, loaded once, for the adapters of several runs. All of it collective.
class Evaluator {
 public:
  /// Everything outlives it. ConfigError when a sequence is longer than the target's positions.
  Evaluator(const RunOptions& options, const std::filesystem::path& corpus, const RunEnvironment& environment);

  /// NonFiniteError naming what is not finite.
  Evaluation evaluate(const AdapterBundle& bundle, FaithfulnessOptions::Partial partial);

 private:
  const RunOptions& options_;
  const RunEnvironment& environment_;
  std::optional<TokenDataset> corpus_;
  std::optional<Decoder> pair_, base_;
  std::string refusal_;
};

/// ConfigError when the adapters do not belong to the options' models. Collective.
AdapterBundle load_fitting_adapters(const RunOptions& options, const AdapterSource& adapters,
                                    const RunEnvironment& environment);

/// Loads models, adapters and corpus and compares. Collective. ConfigError when adapters and models do not belong
/// together, or a sequence is longer than the target's positions; NonFiniteError naming what is not finite.
Evaluation run_evaluation(const EvaluationRequest& request, const RunEnvironment& environment);

/// The report as a table for people.
std::string to_table(const FaithfulnessReport& report);
/// The evaluation as JSON; no clocks, hosts or paths, so equal evaluations give equal text.
std::string to_json(const Evaluation& evaluation);

}  // namespace tadapt

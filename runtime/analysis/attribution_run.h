// Attribution graphs of many prompts: ranks share them, what is done is not done again.
#pragma once

#include <filesystem>
#include <string>

#include "runtime/analysis/prune_graph.h"
#include "runtime/train/run_environment.h"
#include "runtime/train/run_options.h"

namespace tadapt {

struct AttributionRequest {
  const RunOptions& options;        ///< models, chat format
  std::filesystem::path adapters;   ///< anything load_adapters takes
  std::filesystem::path prompts;    ///< see read_attribution_prompts
  std::filesystem::path directory;  ///< where everything goes
  GrowthOptions growth = {};
  PruningShares pruning = {};
  std::int64_t most_bytes = 0;  ///< that a rank may use; 0: what there is
  std::string feature_url = {};
};

/// Writes for each prompt SLUG.json (circuit-tracer's format), SLUG.html and, when these are there,
/// SLUG.balances.json; in the end graph-metadata.json. The files depend on the request alone, not on the number of
/// ranks. A prompt that has its balances is done; those of other models, adapters, options or prompts are a ConfigError
/// that names them. A stop signal ends it with exit code 75, without the graphs under way. ConfigError naming the bytes
/// when there is not enough memory. Collective.
void run_attribution(const AttributionRequest& request, const RunEnvironment& environment);

}  // namespace tadapt

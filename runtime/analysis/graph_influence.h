// PredictionInfluence: how much each feature does for predictions of some tokens, by the attribution graphs of a
// folder.
#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "runtime/bundle/feature_set.h"

namespace tadapt {

/// Influence as in pruning, p · (Â + Â² + …) from the logits that are asked for alone: Â is |weight| with a target's
/// edges summing to 1, over the edges that the graphs have kept. A feature's is summed over positions and graphs.
class PredictionInfluence {
 public:
  /// Reads the folder that `tadapt-dist attribute` wrote. `is_asked_for`: by a token's id. MissingInputError when there
  /// are no graphs, DataError for what is none, ConfigError when they are of other adapters, or none of their logits is
  /// asked for.
  PredictionInfluence(FileSystem& files, const std::filesystem::path& graphs, const std::string& adapters,
                      const std::function<bool(std::int32_t token)>& is_asked_for);

  /// Features that have at least this share of the influence of all features, and some.
  FeatureSet features_with(double share) const;
  /// By layer and feature.
  const std::map<std::pair<int, std::int32_t>, double>& influence() const { return influence_; }

 private:
  void add(const nlohmann::json& graph, const std::string& file, const std::function<bool(std::int32_t)>& is_asked_for);

  std::string adapters_;
  std::map<std::pair<int, std::int32_t>, double> influence_;
  std::int64_t logits_ = 0;
};

}  // namespace tadapt

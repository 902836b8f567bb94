// Which features are labelled: all that were ever active, those of a set, or a sample of either.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <vector>

#include "runtime/analysis/feature_store.h"

namespace tadapt {

struct FeatureChoice {
  std::filesystem::path set;  ///< a feature set of the same adapters; empty: all features
  std::int64_t sample = 0;    ///< so many of them, drawn uniformly; 0: all
  std::uint64_t seed = 0;
};

struct ChosenFeatures {
  std::map<int, std::vector<std::int64_t>> by_layer;  ///< places in StoredLayer, ascending
  std::int64_t count = 0;
  std::int64_t live = 0;  ///< of the set, or of the store: those that were ever active, from which they were chosen

  bool is_sample() const { return count < live; }
};

/// Of the live features those with the lowest draws by (seed, kLabelFeatures, layer, feature): a larger sample holds
/// the smaller one. Errors of require_set_fits; ConfigError when no feature is left.
ChosenFeatures choose_features(FileSystem& files, const FeatureStore& store, const FeatureChoice& choice);

}  // namespace tadapt

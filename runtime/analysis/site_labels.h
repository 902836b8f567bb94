// SiteLabels: what was said of features, as the feature site shows it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "runtime/analysis/feature_labels.h"
#include "runtime/analysis/feature_store.h"

namespace tadapt {

class SiteLabels {
 public:
  /// None.
  SiteLabels() = default;
  /// Those of a file that read_feature_labels reads, and its errors; ConfigError when they are of other adapters than
  /// the store's features, DataError for a feature that it lacks.
  SiteLabels(FileSystem& files, const std::filesystem::path& file, const FeatureStore& store);

  /// nullptr when nothing is said of it.
  const FeatureLabel* find(int layer, std::int32_t feature) const { return labels_.find(layer, feature); }
  /// The place of its class in classes().
  std::int64_t class_number(int layer, std::int32_t feature) const;
  /// "" for none, then those that were given ("language", "reasoning/hesitation"), ascending.
  const std::vector<std::string>& classes() const { return classes_; }
  std::int64_t size() const { return static_cast<std::int64_t>(labels_.of_feature.size()); }

 private:
  FeatureLabels labels_;
  std::vector<std::string> classes_{""};
};

}  // namespace tadapt

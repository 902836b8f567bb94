// FeatureLabels: what a judge or a person says that features are, from a JSONL file.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "runtime/analysis/feature_store.h"

namespace tadapt {

struct FeatureLabel {
  std::size_t class_number = 0;  ///< in FeatureLabels::classes(); 0: none was given
  std::string description;
};

class FeatureLabels {
 public:
  /// None.
  FeatureLabels() = default;
  /// Lines {"layer", "feature", "class", "description"}, the last two as there are; other keys are left alone, and of
  /// two lines about a feature the later one counts. Lines may say whose features they mean ("adapters", the store's
  /// identity): ConfigError when it is another's. DataError naming file and line for what is no label of a feature of
  /// the store.
  FeatureLabels(FileSystem& files, const std::filesystem::path& file, const FeatureStore& store);

  /// The label, or one that says nothing.
  const FeatureLabel& of(int layer, std::int32_t feature) const;
  /// "", then their names in order of first appearance.
  const std::vector<std::string>& classes() const { return classes_; }
  std::size_t size() const { return labels_.size(); }

 private:
  std::size_t number_of(const std::string& name);

  std::vector<std::string> classes_{""};
  std::map<std::string, std::size_t> numbers_{{"", 0}};
  std::map<std::pair<int, std::int32_t>, FeatureLabel> labels_;
  FeatureLabel none_;
};

}  // namespace tadapt

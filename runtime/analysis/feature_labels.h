// Labels that were given to features, one JSON object a line: {"layer", "feature", "task", "label", …}.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "runtime/bundle/feature_set.h"

namespace tadapt {

struct LabelQuestion {
  std::vector<std::string> labels;  ///< any of them
  std::string task;                 ///< in which they were given; empty: in any
  std::string adapters;             ///< identity of what the labels are about
};

/// The features that have one of the labels. MissingInputError and DataError naming file and line; ConfigError when a
/// label is not there at all, naming those that are, or when a line says that it is about other adapters.
FeatureSet labelled_features(FileSystem& files, const std::filesystem::path& file, const LabelQuestion& question);

}  // namespace tadapt

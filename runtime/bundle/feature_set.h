// FeatureSet: features of some adapters, chosen by a rule, as a small file.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "runtime/bundle/adapter_bundle.h"

namespace tadapt {

struct FeatureSet {
  std::string name;                                   ///< "hesitation"
  std::string rule;                                   ///< how they were chosen, in words
  std::string adapters;                               ///< fingerprint() of the adapters whose features they are
  std::map<int, std::vector<std::int32_t>> features;  ///< layer -> ascending ids

  std::int64_t size() const;
};

/// The same for equal weights of equal layers, wherever they were read: a run, its checkpoint or an export.
std::string fingerprint(const AdapterBundle& bundle);

/// JSON: {format_version, name, rule, adapters, layers: [{layer, features: [id…]}]}.
std::string to_json(const FeatureSet& set);

/// MissingInputError when it is not there; DataError naming file and place when it is no feature set.
FeatureSet read_feature_set(FileSystem& files, const std::filesystem::path& path);
void write_feature_set(FileSystem& files, const std::filesystem::path& path, const FeatureSet& set);

/// What has features.
struct Dictionaries {
  std::string source;                    ///< for messages
  std::string adapters;                  ///< fingerprint()
  std::map<int, std::int64_t> features;  ///< how many, by layer
};
Dictionaries dictionaries_of(const AdapterBundle& bundle);

/// ConfigError when the set is of other adapters, DataError naming layer and feature when they have none such. `file`
/// stands in messages.
void require_set_fits(const FeatureSet& set, const Dictionaries& dictionaries, const std::string& file);

}  // namespace tadapt

#include "runtime/bundle/feature_set.h"

#include <xxhash.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "data/json.h"

namespace tadapt {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

constexpr int kFormatVersion = 1;

/// What a member of an object must be to be read as a T.
template <class T>
T member(const nlohmann::json& object, const char* key, const char* expected, const fs::path& path) {
  try {
    return object.at(key).get<T>();
  } catch (const nlohmann::json::exception&) {
    throw DataError("{}: {}: expected {}", path.string(), key, expected);
  }
}

std::vector<std::int32_t> ids_of(const nlohmann::json& layer, const fs::path& path) {
  const auto ids = member<std::vector<std::int64_t>>(layer, "features", "a list of features", path);
  std::vector<std::int32_t> features;
  std::int64_t before = -1;
  for (const std::int64_t id : ids) {
    if (id <= before || id > std::numeric_limits<std::int32_t>::max())
      throw DataError("{}: features: expected ascending numbers from 0, found {} after {}", path.string(), id, before);
    features.push_back(static_cast<std::int32_t>(id));
    before = id;
  }
  return features;
}

}  // namespace

std::int64_t FeatureSet::size() const {
  std::int64_t size = 0;
  for (const auto& [layer, ids] : features) size += static_cast<std::int64_t>(ids.size());
  return size;
}

std::string fingerprint(const AdapterBundle& bundle) {
  std::uint64_t hash = 0;
  for (const AdapterBundle::Layer& layer : bundle.layers) {
    const Tensor masters = layer.store->master(0);
    hash = XXH3_64bits_withSeed(masters.data(), masters.bytes(), hash + static_cast<std::uint64_t>(layer.layer));
  }
  return fmt::format("{} {:016x}", bundle.type, hash);
}

std::string to_json(const FeatureSet& set) {
  Json layers = Json::array();
  for (const auto& [layer, ids] : set.features)
    if (!ids.empty()) layers.push_back({{"layer", layer}, {"features", ids}});
  const Json object = {{"format_version", kFormatVersion},
                       {"name", set.name},
                       {"rule", set.rule},
                       {"adapters", set.adapters},
                       {"layers", layers}};
  return object.dump() + "\n";
}

FeatureSet read_feature_set(FileSystem& files, const fs::path& path) {
  const nlohmann::json object = parse_json(read_text(files, path), path);
  const int version = member<int>(object, "format_version", "a number", path);
  if (version != kFormatVersion)
    throw DataError("{}: format_version: expected {}, found {}", path.string(), kFormatVersion, version);
  FeatureSet set{.name = member<std::string>(object, "name", "a text", path),
                 .rule = member<std::string>(object, "rule", "a text", path),
                 .adapters = member<std::string>(object, "adapters", "a text", path),
                 .features = {}};
  for (const nlohmann::json& layer : member<std::vector<nlohmann::json>>(object, "layers", "a list", path)) {
    const int number = member<int>(layer, "layer", "the number of a layer", path);
    if (!set.features.emplace(number, ids_of(layer, path)).second)
      throw DataError("{}: layers: layer {} is there twice", path.string(), number);
  }
  return set;
}

void write_feature_set(FileSystem& files, const fs::path& path, const FeatureSet& set) {
  write_atomically(files, path, to_json(set));
}

Dictionaries dictionaries_of(const AdapterBundle& bundle) {
  Dictionaries dictionaries{bundle.source, fingerprint(bundle), {}};
  for (const AdapterBundle::Layer& layer : bundle.layers) dictionaries.features[layer.layer] = layer.shape.features;
  return dictionaries;
}

void require_set_fits(const FeatureSet& set, const Dictionaries& dictionaries, const std::string& file) {
  for (const auto& [layer, ids] : set.features) {
    const auto found = dictionaries.features.find(layer);
    if (found == dictionaries.features.end())
      throw DataError("{}: names features of layer {}, which has no adapter in {}", file, layer, dictionaries.source);
    if (!ids.empty() && ids.back() >= found->second)
      throw DataError("{}: names feature {} of layer {}, whose dictionary has {}", file, ids.back(), layer,
                      found->second);
  }
  if (set.adapters != dictionaries.adapters)
    throw ConfigError("{}: features of the adapters '{}', but {} are '{}'", file, set.adapters, dictionaries.source,
                      dictionaries.adapters);
}

}  // namespace tadapt

#include "runtime/analysis/site_labels.h"

#include <algorithm>
#include <set>

#include "data/json.h"

namespace tadapt {
namespace {

std::string class_name(const FeatureLabel& label) {
  return label.subclass.empty() ? label.main_class : label.main_class + "/" + label.subclass;
}

}  // namespace

SiteLabels::SiteLabels(FileSystem& files, const std::filesystem::path& file, const FeatureStore& store)
    : labels_(read_feature_labels(files, file)) {
  if (labels_.adapters != store.description().identity)
    throw ConfigError("{}: labels for features of {}; {} holds those of {}", file.string(), in_quotes(labels_.adapters),
                      store.directory().string(), store.description().identity);
  const std::vector<int> layers = store.layers();
  std::set<std::string> given;
  for (const auto& [feature, label] : labels_.of_feature) {
    const auto [layer, id] = feature;
    if (!std::ranges::count(layers, layer))
      throw DataError("{}: a label for feature {} of layer {}, which {} has not", file.string(), id, layer,
                      store.directory().string());
    // Of neurons only some are in a store, whatever their number.
    const bool has_all = store.description().subject == "adapters";
    if (has_all && id >= store.features(layer))
      throw DataError("{}: a label for feature {} of the {} of layer {}", file.string(), id, store.features(layer),
                      layer);
    given.insert(class_name(label));
  }
  given.erase("");
  classes_.insert(classes_.end(), given.begin(), given.end());
}

std::int64_t SiteLabels::class_number(int layer, std::int32_t feature) const {
  const FeatureLabel* label = find(layer, feature);
  return label == nullptr ? 0 : std::ranges::find(classes_, class_name(*label)) - classes_.begin();
}

}  // namespace tadapt

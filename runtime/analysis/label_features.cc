#include "runtime/analysis/label_features.h"

#include <algorithm>
#include <optional>
#include <tuple>

#include "kernels/core/random.h"
#include "runtime/bundle/feature_set.h"

namespace tadapt {
namespace {

FeatureSet fitting_set(FileSystem& files, const FeatureStore& store, const std::filesystem::path& path) {
  Dictionaries dictionaries{store.directory().string(), store.description().identity, {}};
  for (const int layer : store.layers()) dictionaries.features[layer] = store.features(layer);
  FeatureSet set = read_feature_set(files, path);
  require_set_fits(set, dictionaries, path.string());
  return set;
}

}  // namespace

ChosenFeatures choose_features(FileSystem& files, const FeatureStore& store, const FeatureChoice& choice) {
  std::optional<FeatureSet> set;
  if (!choice.set.empty()) set = fitting_set(files, store, choice.set);
  std::vector<std::tuple<std::uint64_t, int, std::int64_t>> live;  // draw, layer, place
  for (const int number : store.layers()) {
    if (set && !set->features.contains(number)) continue;
    const StoredLayer layer = store.layer(number);
    for (std::int64_t place = 0; place < layer.features(); ++place) {
      const StoredFeature feature = layer.feature(place);
      const bool wanted = !set || std::ranges::binary_search(set->features.at(number), feature.id);
      if (!wanted || feature.counts.active == 0) continue;
      const RandomStream random(choice.seed, RandomPurpose::kLabelFeatures, static_cast<std::uint64_t>(number),
                                static_cast<std::uint64_t>(feature.id));
      live.emplace_back(random.bits64(0), number, place);
    }
  }
  if (live.empty())
    throw ConfigError("{}: none of {} was ever active: there is nothing to label", store.directory().string(),
                      set ? choice.set.string() : "its features");
  ChosenFeatures chosen{.by_layer = {}, .live = std::ssize(live)};
  if (choice.sample > 0 && choice.sample < chosen.live) {
    std::ranges::sort(live);
    live.resize(static_cast<std::size_t>(choice.sample));
  }
  for (const auto& [draw, layer, place] : live) chosen.by_layer[layer].push_back(place);
  for (auto& [layer, places] : chosen.by_layer) std::ranges::sort(places);
  chosen.count = std::ssize(live);
  return chosen;
}

}  // namespace tadapt

#include "runtime/analysis/site_labels.h"

#include <algorithm>
#include <limits>

#include "data/json.h"
#include "data/json_field.h"
#include "data/line_reader.h"

namespace tadapt {

FeatureLabels::FeatureLabels(FileSystem& files, const std::filesystem::path& file, const FeatureStore& store) {
  const std::vector<int> layers = store.layers();
  // Of neurons only some are in a store, whatever their number.
  const bool has_all = store.description().subject == "adapters";
  LineReader lines(files, file);
  std::int64_t number = 0;
  for (std::string text; lines.next(text);) {
    const std::string place = fmt::format("{}:{}", file.string(), ++number);
    const nlohmann::json json = parse_json(text, place);
    const JsonField line(json, place);
    const std::string adapters = line["adapters"].string_or(store.description().identity);
    if (adapters != store.description().identity)
      throw ConfigError("{}: a label for features of {}; {} holds those of {}", place, in_quotes(adapters),
                        store.directory().string(), store.description().identity);
    const std::int64_t layer = line["layer"].integer(0, std::numeric_limits<int>::max());
    if (!std::ranges::count(layers, layer))
      throw DataError("{}: layer {} is not in {}", place, layer, store.directory().string());
    const std::int64_t features =
        has_all ? store.features(static_cast<int>(layer)) : std::numeric_limits<std::int32_t>::max();
    const std::int64_t feature = line["feature"].integer(0, std::numeric_limits<std::int32_t>::max());
    if (feature >= features) throw DataError("{}: feature {} of the {} of layer {}", place, feature, features, layer);
    labels_[{static_cast<int>(layer), static_cast<std::int32_t>(feature)}] = {
        .class_number = number_of(line["class"].string_or("")), .description = line["description"].string_or("")};
  }
}

const FeatureLabel& FeatureLabels::of(int layer, std::int32_t feature) const {
  const auto found = labels_.find({layer, feature});
  return found == labels_.end() ? none_ : found->second;
}

std::size_t FeatureLabels::number_of(const std::string& name) {
  const auto [place, is_new] = numbers_.try_emplace(name, classes_.size());
  if (is_new) classes_.push_back(name);
  return place->second;
}

}  // namespace tadapt

#include "runtime/analysis/site_index.h"

#include <algorithm>

#include "runtime/analysis/site_chunk.h"

namespace tadapt {
namespace {

using Json = nlohmann::ordered_json;

float largest_activation(const StoredFeature& feature) {
  return feature.top.empty() ? 0.0f : feature.top.front().activation;
}

/// Columns of the rows of a layer.
struct Columns {
  std::vector<std::int64_t> id, active, region, region_percent, domain, domain_percent, class_number, promoted;
  std::vector<float> largest;
  Json descriptions = Json::array();

  void add(const StoredFeature& feature, std::int64_t label_class, const FeatureLabel* label) {
    const LargestPart of_region = largest_part(feature.counts.by_region);
    const LargestPart of_domain = largest_part(feature.counts.by_domain);
    id.push_back(feature.id);
    active.push_back(feature.counts.active);
    largest.push_back(largest_activation(feature));
    region.push_back(of_region.part);
    region_percent.push_back(of_region.percent);
    domain.push_back(of_domain.part);
    domain_percent.push_back(of_domain.percent);
    class_number.push_back(label_class);
    descriptions.push_back(label == nullptr ? "" : label->description);
    for (const LensToken& token : feature.promoted) promoted.push_back(token.id);
  }

  Json to_json() const {
    return {{"id", site_column(id)},
            {"active", site_column(active)},
            {"largest", site_column(largest)},
            {"region", site_column(region)},
            {"region_percent", site_column(region_percent)},
            {"domain", site_column(domain)},
            {"domain_percent", site_column(domain_percent)},
            {"promoted", site_column(promoted)}};
  }
};

/// The row of the feature that was added last.
Json row_of(const Columns& columns, const StoredLayer& layer, const StoredFeature& feature,
            const StoredTokens& tokens) {
  Json texts = Json::array();
  for (const LensToken& token : feature.promoted) texts.push_back(tokens.text(token.id));
  return Json::array({layer.layer(), feature.id, feature.counts.active, shortest_decimal(columns.largest.back()),
                      columns.region.back(), columns.region_percent.back(), columns.domain.back(),
                      columns.domain_percent.back(), columns.class_number.back(), columns.descriptions.back(), texts});
}

}  // namespace

LargestPart largest_part(std::span<const std::int64_t> counts) {
  std::int64_t whole = 0;
  for (const std::int64_t count : counts) whole += count;
  if (whole == 0) return {};
  const auto largest = std::ranges::max_element(counts);
  return {.part = largest - counts.begin(), .percent = 100 * *largest / whole};
}

bool FirstRow::operator<(const FirstRow& other) const {
  return std::tuple(-active, layer, id) < std::tuple(-other.active, other.layer, other.id);
}

LayerIndex make_layer_index(const StoredLayer& layer, const StoredTokens& tokens, const SiteLabels& labels) {
  Columns columns;
  LayerIndex index;
  std::int64_t live = 0, active = 0;
  for (std::int64_t i = 0; i < layer.features(); ++i) {
    const StoredFeature feature = layer.feature(i);
    columns.add(feature, labels.class_number(layer.layer(), feature.id), labels.find(layer.layer(), feature.id));
    live += feature.counts.active > 0 ? 1 : 0;
    active += feature.counts.active;
    FirstRow row{.active = feature.counts.active, .layer = layer.layer(), .id = feature.id, .row = {}};
    if (index.first.size() == kFirstRows && !(row < index.first.back())) continue;
    row.row = row_of(columns, layer, feature, tokens);
    index.first.insert(std::ranges::upper_bound(index.first, row, std::less()), std::move(row));
    if (index.first.size() > kFirstRows) index.first.pop_back();
  }
  index.chunk = columns.to_json();
  if (labels.size() > 0) {
    index.chunk["class"] = site_column(columns.class_number);
    index.chunk["description"] = std::move(columns.descriptions);
  }
  index.summary = {{"layer", layer.layer()}, {"features", layer.features()}, {"live", live}, {"active", active}};
  return index;
}

}  // namespace tadapt

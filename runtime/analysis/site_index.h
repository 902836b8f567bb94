// The index of the feature site: one row a feature, small enough that a page can hold all of them.
#pragma once

#include <compare>
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <span>
#include <vector>

#include "runtime/analysis/feature_store.h"
#include "runtime/analysis/site_labels.h"

namespace tadapt {

/// The part of a whole that has the most, and its share in percent, rounded down; 0 and 0 of nothing.
struct LargestPart {
  std::int64_t part = 0;
  std::int64_t percent = 0;
};
LargestPart largest_part(std::span<const std::int64_t> counts);

/// A row that the page shows before it has the index: of the features that are active most often.
struct FirstRow {
  std::int64_t active = 0;
  int layer = 0;
  std::int32_t id = 0;
  nlohmann::ordered_json
      row;  ///< [layer, id, active, largest, region, percent, domain, percent, class, description, texts]

  bool operator<(const FirstRow& other) const;  ///< stands before it
};
inline constexpr std::size_t kFirstRows = 60;

struct LayerIndex {
  nlohmann::ordered_json chunk;    ///< columns of the rows
  nlohmann::ordered_json summary;  ///< {layer, features, live, active}
  std::vector<FirstRow> first;     ///< at most kFirstRows, in order
};
LayerIndex make_layer_index(const StoredLayer& layer, const StoredTokens& tokens, const SiteLabels& labels);

}  // namespace tadapt

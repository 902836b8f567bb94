#include "runtime/analysis/marked_corpus.h"

#include <algorithm>

namespace tadapt {

MarkedCorpus::MarkedCorpus(const TokenDataset& dataset, const RegionFinder& finder, const std::string& file)
    : dataset_(dataset) {
  totals_.by_domain.resize(dataset.domains().size());
  for (std::int64_t i = 0; i < dataset.size(); ++i) {
    const TokenSequence sequence = dataset.sequence(i);
    const auto found = finder.regions(sequence);
    if (!found) continue;
    sequences_.push_back(i);
    begins_.push_back(static_cast<std::int64_t>(places_.size()));
    for (std::int64_t position = 0; const Region region : found->of_token) {
      TokenPlace place{.region = region};
      if (region == Region::kThinking) {
        place.thinking_bin = static_cast<std::int8_t>(kThinkingBins * (position - found->think_begin) /
                                                      (found->think_end - found->think_begin));
        ++totals_.by_thinking[static_cast<std::size_t>(place.thinking_bin)];
      }
      ++totals_.by_region[static_cast<std::size_t>(region)];
      places_.push_back(place);
      ++position;
    }
    totals_.by_domain[static_cast<std::size_t>(sequence.domain)] += static_cast<std::int64_t>(sequence.ids.size());
  }
  begins_.push_back(static_cast<std::int64_t>(places_.size()));
  totals_.tokens = begins_.back();
  if (sequences_.empty())
    throw DataError(
        "{}: none of its {} conversations has a response with <think> … </think> within corpus.max_sequence_tokens: "
        "there is nothing to collect features over",
        file, dataset.size());
}

std::int64_t MarkedCorpus::index_of(std::int64_t number) const {
  const auto found = std::ranges::lower_bound(sequences_, number);
  require_shape(found != sequences_.end() && *found == number, "conversation {} does not think", number);
  return found - sequences_.begin();
}

std::span<const TokenPlace> MarkedCorpus::places(std::int64_t index) const {
  const auto at = static_cast<std::size_t>(index);
  return std::span(places_).subspan(static_cast<std::size_t>(begins_[at]),
                                    static_cast<std::size_t>(begins_[at + 1] - begins_[at]));
}

std::int32_t MarkedCorpus::region_offset(std::int64_t index, std::int32_t position) const {
  const std::span<const TokenPlace> all = places(index);
  const Region region = all[static_cast<std::size_t>(position)].region;
  std::int32_t before = 0;
  while (before < position && all[static_cast<std::size_t>(position - before - 1)].region == region) ++before;
  return before;
}

}  // namespace tadapt

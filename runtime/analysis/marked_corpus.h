// MarkedCorpus: the conversations of a corpus that features are collected over, with the region of every token.
#pragma once

#include <array>
#include <functional>
#include <span>
#include <vector>

#include "runtime/analysis/token_regions.h"

namespace tadapt {

inline constexpr int kThinkingBins = 10;

/// Where a token stands in its conversation.
struct TokenPlace {
  Region region = Region::kBos;
  std::int8_t thinking_bin = -1;  ///< tenth of the thinking; −1 outside
};

/// How many tokens there are of each kind.
struct TokenTotals {
  std::int64_t tokens = 0;
  std::vector<std::int64_t> by_domain;
  std::array<std::int64_t, kRegionNames.size()> by_region{};
  std::array<std::int64_t, kThinkingBins> by_thinking{};
};

class MarkedCorpus {
 public:
  /// The conversations that think. The dataset must outlive it. DataError naming `file` when there is none.
  MarkedCorpus(const TokenDataset& dataset, const RegionFinder& finder, const std::string& file);

  const TokenDataset& dataset() const { return dataset_; }
  std::int64_t size() const { return static_cast<std::int64_t>(sequences_.size()); }
  std::int64_t skipped() const { return dataset_.size() - size(); }
  /// Number in the dataset of conversation `index`.
  std::int64_t number(std::int64_t index) const { return sequences_[static_cast<std::size_t>(index)]; }
  /// The conversation with that number in the dataset, which must be one that thinks.
  std::int64_t index_of(std::int64_t number) const;
  TokenSequence sequence(std::int64_t index) const { return dataset_.sequence(number(index)); }
  /// One for each of its tokens.
  std::span<const TokenPlace> places(std::int64_t index) const;
  /// Tokens of its region before this one.
  std::int32_t region_offset(std::int64_t index, std::int32_t position) const;
  const TokenTotals& totals() const { return totals_; }

 private:
  const TokenDataset& dataset_;
  std::vector<std::int64_t> sequences_, begins_;
  std::vector<TokenPlace> places_;
  TokenTotals totals_;
};

}  // namespace tadapt

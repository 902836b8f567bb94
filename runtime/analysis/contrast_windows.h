// ContrastWindows: stretches of a corpus, drawn uniformly, of which is kept which features are active in them.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "runtime/analysis/feature_records.h"

namespace tadapt {

inline constexpr int kMostContrastWindows = 65535;

/// Tokens [begin, end) of a conversation.
struct TokenRange {
  std::int32_t begin = 0, end = 0;

  bool overlaps(const TokenRange& other) const { return begin < other.end && other.begin < end; }
};

/// What is shown of a conversation of `tokens` tokens about one of them: kTokensBefore before it and kTokensAfter after
/// it, as far as there are any.
TokenRange window_around(std::int32_t position, std::int64_t tokens);

/// The window around a token.
struct ContrastWindow {
  std::int64_t sequence = 0;  ///< number in the dataset
  std::int32_t position = 0;
};

class ContrastWindows {
 public:
  /// None.
  ContrastWindows() = default;
  /// Around those `count` tokens of the corpus (all, if there are fewer) whose draw, a function of (seed, kContrast,
  /// sequence, position), is lowest. So every rank knows them all before the first token has been run.
  ContrastWindows(const MarkedCorpus& corpus, std::uint64_t seed, int count);

  /// In order of (sequence, position); their places are their numbers.
  std::span<const ContrastWindow> all() const { return windows_; }
  /// Tells a batch where the windows of the conversation lie that was appended last.
  void mark(BatchPlaces& batch) const;

 private:
  std::vector<ContrastWindow> windows_;
};

}  // namespace tadapt

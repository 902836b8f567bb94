// Regions: which part of a conversation each token belongs to.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "data/token_dataset.h"

namespace tadapt {

/// In this order in every file. What a chat format does not write has no tokens.
enum class Region : std::int8_t {
  kBos,
  kUserMarker,  ///< what opens a turn of the user (or of the system) in the prompt
  kQuestion,    ///< all else before the response: texts, earlier turns, what closes them
  kAssistantMarker,
  kThinkStart,  ///< "<think>"
  kThinking,
  kThinkEnd,  ///< "</think>"
  kAnswer,    ///< all that follows; what stands before "<think>" too
};
inline constexpr std::array<std::string_view, 8> kRegionNames = {
    "bos", "user_marker", "question", "assistant_marker", "think_start", "thinking", "think_end", "answer"};

/// A conversation cut into regions.
struct SequenceRegions {
  std::vector<Region> of_token;
  std::int64_t think_begin = 0, think_end = 0;  ///< tokens [think_begin, think_end) are Region::kThinking
};

/// Tells the regions of conversations of one chat format. Markers are found in the tokens' bytes, so it does not matter
/// whether a tokenizer has them as tokens of their own; a token that holds a byte of a marker belongs to it.
class RegionFinder {
 public:
  /// The tokenizer must outlive it.
  RegionFinder(ChatFormat format, const Tokenizer& tokenizer);

  /// Nothing when the (last) response has no "<think>" with a "</think>" behind it.
  std::optional<SequenceRegions> regions(const TokenSequence& sequence) const;

 private:
  struct Marker {
    std::string text;
    Region region;
  };
  const Tokenizer& tokenizer_;
  std::vector<Marker> markers_;
};

}  // namespace tadapt

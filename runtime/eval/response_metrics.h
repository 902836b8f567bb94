// What is measured of one response beside whether it is right: where it degenerates, how often it hesitates.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

namespace tadapt {

/// A response degenerates where, in some window of 200 tokens, an n-gram of 1 to 5 tokens covers more than 25 %, that
/// is, count · n / 200 > 0.25 with overlapping occurrences counted. Returns the left edge of the first such window;
/// windows begin at every token, and a response of fewer than 200 tokens has none. Takes O(tokens).
std::optional<std::size_t> degeneration(std::span<const std::int32_t> ids);

struct WordCounts {
  std::int64_t waits = 0;        ///< "wait"
  std::int64_t hesitations = 0;  ///< "wait", "hmm", "but", "alternatively"
};

/// Whole words (longest runs of ASCII letters), whatever their case.
WordCounts count_words(std::string_view text);

}  // namespace tadapt

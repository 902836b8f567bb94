#include "runtime/eval/response_metrics.h"

#include <algorithm>
#include <array>
#include <map>
#include <string>
#include <vector>

namespace tadapt {
namespace {

constexpr std::size_t kWindow = 200;
constexpr std::size_t kMostGram = 5;

/// A number for every n-gram, equal ones alike, from those of the (n−1)-grams.
std::vector<std::size_t> longer_grams(const std::vector<std::size_t>& shorter, std::span<const std::int32_t> last) {
  std::map<std::pair<std::size_t, std::int32_t>, std::size_t> numbers;
  std::vector<std::size_t> grams;
  for (std::size_t i = 0; i < last.size(); ++i)
    grams.push_back(numbers.try_emplace({shorter[i], last[i]}, numbers.size()).first->second);
  return grams;
}

/// Left edge of the first window in which one of these n-grams is too frequent.
std::optional<std::size_t> first_window(const std::vector<std::size_t>& grams, std::size_t n) {
  const std::size_t in_window = kWindow - n + 1;
  std::vector<std::size_t> counts(grams.size(), 0);
  for (std::size_t i = 0; i < grams.size(); ++i) {
    if (i >= in_window) --counts[grams[i - in_window]];
    const bool is_covered = 4 * ++counts[grams[i]] * n > kWindow;
    // Before the first window is full the counts are those of its beginning.
    if (is_covered) return i < in_window ? 0 : i + 1 - in_window;
  }
  return std::nullopt;
}

bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

}  // namespace

std::optional<std::size_t> degeneration(std::span<const std::int32_t> ids) {
  if (ids.size() < kWindow) return std::nullopt;
  std::optional<std::size_t> earliest;
  std::vector<std::size_t> grams(ids.size(), 0);  // of length 0: all alike
  for (std::size_t n = 1; n <= kMostGram; ++n) {
    grams = longer_grams(grams, ids.subspan(n - 1));
    const std::optional<std::size_t> window = first_window(grams, n);
    if (window) earliest = std::min(*window, earliest.value_or(*window));
  }
  return earliest;
}

WordCounts count_words(std::string_view text) {
  constexpr std::array<std::string_view, 4> kHesitations{"wait", "hmm", "but", "alternatively"};
  WordCounts counts;
  for (std::size_t i = 0; i < text.size();) {
    std::string word;
    while (i < text.size() && is_letter(text[i])) word.push_back(static_cast<char>(text[i++] | 0x20));
    counts.waits += word == "wait" ? 1 : 0;
    counts.hesitations += std::ranges::find(kHesitations, word) != kHesitations.end() ? 1 : 0;
    if (word.empty()) ++i;
  }
  return counts;
}

}  // namespace tadapt

#include "runtime/analysis/token_regions.h"

#include <algorithm>

namespace tadapt {
namespace {

constexpr std::string_view kThink = "<think>";
constexpr std::string_view kEndThink = "</think>";

/// The bytes of some tokens, and where in them each token begins.
struct Bytes {
  std::string text;
  std::vector<std::size_t> begins;  ///< one more than there are tokens

  Bytes(const Tokenizer& tokenizer, std::span<const std::int32_t> ids) {
    begins.reserve(ids.size() + 1);
    for (const std::int32_t id : ids) {
      begins.push_back(text.size());
      text += tokenizer.token_bytes(id);
    }
    begins.push_back(text.size());
  }
  /// Tokens [first, second) hold bytes [begin, end).
  std::pair<std::size_t, std::size_t> tokens(std::size_t begin, std::size_t end) const {
    const auto first = std::ranges::upper_bound(begins, begin) - begins.begin() - 1;
    const auto last = std::ranges::lower_bound(begins, end) - begins.begin();
    return {static_cast<std::size_t>(first), static_cast<std::size_t>(last)};
  }
};

}  // namespace

RegionFinder::RegionFinder(ChatFormat format, const Tokenizer& tokenizer) : tokenizer_(tokenizer) {
  if (format == ChatFormat::kDeepseek)
    markers_ = {{"<｜User｜>", Region::kUserMarker}, {"<｜Assistant｜>", Region::kAssistantMarker}};
  if (format == ChatFormat::kQwen)
    markers_ = {{"<|im_start|>user\n", Region::kUserMarker},
                {"<|im_start|>system\n", Region::kUserMarker},
                {"<|im_start|>assistant\n", Region::kAssistantMarker}};
}

std::optional<SequenceRegions> RegionFinder::regions(const TokenSequence& sequence) const {
  const auto prompt_tokens = static_cast<std::size_t>(sequence.response_start);
  const Bytes response(tokenizer_, sequence.ids.subspan(prompt_tokens));
  const std::size_t open = response.text.find(kThink);
  const std::size_t close = open == std::string::npos ? open : response.text.find(kEndThink, open + kThink.size());
  if (close == std::string::npos) return std::nullopt;

  SequenceRegions found;
  found.of_token.assign(sequence.ids.size(), Region::kAnswer);
  const auto mark = [&](std::size_t begin, std::size_t end, Region region) {
    std::fill(found.of_token.begin() + static_cast<std::ptrdiff_t>(begin),
              found.of_token.begin() + static_cast<std::ptrdiff_t>(end), region);
  };
  mark(0, prompt_tokens, Region::kQuestion);
  const Bytes prompt(tokenizer_, sequence.ids.first(prompt_tokens));
  for (const Marker& marker : markers_) {
    for (std::size_t at = 0; (at = prompt.text.find(marker.text, at)) != std::string::npos; at += marker.text.size()) {
      const auto [begin, end] = prompt.tokens(at, at + marker.text.size());
      mark(begin, end, marker.region);
    }
  }
  if (prompt_tokens > 0 && tokenizer_.bos_id() == sequence.ids.front()) mark(0, 1, Region::kBos);

  const auto start = response.tokens(open, open + kThink.size());
  const auto stop = response.tokens(close, close + kEndThink.size());
  // A token may hold the end of one marker and the beginning of the other.
  const std::size_t thinking = prompt_tokens + start.second;
  const std::size_t thought = std::max(thinking, prompt_tokens + stop.first);
  mark(prompt_tokens + start.first, thinking, Region::kThinkStart);
  mark(thinking, thought, Region::kThinking);
  mark(thought, prompt_tokens + stop.second, Region::kThinkEnd);
  found.think_begin = static_cast<std::int64_t>(thinking);
  found.think_end = static_cast<std::int64_t>(thought);
  return found;
}

}  // namespace tadapt

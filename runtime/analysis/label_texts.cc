#include "runtime/analysis/label_texts.h"

#include <algorithm>
#include <cmath>

#include "kernels/core/random.h"

namespace tadapt {
namespace {

constexpr std::size_t kShownTop = 10, kShownUniform = 5, kHeld = 5;
/// With fewer, a description or a score would say little.
constexpr std::size_t kLeastShown = 3, kLeastHeld = 2;

std::span<const std::int32_t> ids_of(const StoredTokens& tokens, const LabelText& text) {
  return tokens.with_number(text.sequence)
      .ids.subspan(static_cast<std::size_t>(text.tokens.begin),
                   static_cast<std::size_t>(text.tokens.end - text.tokens.begin));
}

/// Takes texts that have nothing in common with those it took before.
class Chooser {
 public:
  explicit Chooser(const StoredTokens& tokens) : tokens_(tokens) {}

  bool takes(const LabelText& text) {
    const std::span<const std::int32_t> ids = ids_of(tokens_, text);
    for (const LabelText& other : taken_) {
      const bool same_place = other.sequence == text.sequence && other.tokens.overlaps(text.tokens);
      if (same_place || std::ranges::equal(ids_of(tokens_, other), ids)) return false;
    }
    taken_.push_back(text);
    return true;
  }
  /// The next of some examples that it takes, `next` being where the search goes on. Whether there was one.
  bool take_next(const std::vector<StoredExample>& examples, std::size_t& next, std::vector<LabelText>& into) {
    while (next < examples.size()) {
      const StoredExample& example = examples[next++];
      const auto tokens = std::ssize(tokens_.with_number(example.sequence).ids);
      if (example.position < 0 || example.position >= tokens)
        throw DataError("feature store: there is no token {} in conversation {}", example.position, example.sequence);
      const LabelText text{.sequence = example.sequence,
                           .position = example.position,
                           .tokens = window_around(example.position, tokens),
                           .near = example.near};
      if (!takes(text)) continue;
      into.push_back(text);
      return true;
    }
    return false;
  }

 private:
  const StoredTokens& tokens_;
  std::vector<LabelText> taken_;
};

/// The windows in which a feature is silent, in the order of their draws.
std::vector<ContrastWindow> silent_windows(const LabelSubject& subject) {
  const std::span<const ContrastWindow> windows = subject.tokens.contrast();
  const std::span<const std::int32_t> active = subject.feature.contrast;
  if (!active.empty() && (active.front() < 0 || active.back() >= std::ssize(windows)))
    throw DataError("feature store: feature {} of layer {} is active in contrast window {} of {}", subject.feature.id,
                    subject.layer, active.back(), windows.size());
  const std::uint64_t step =
      static_cast<std::uint64_t>(subject.layer) << 32 | static_cast<std::uint64_t>(subject.feature.id);
  const RandomStream random(subject.seed, RandomPurpose::kLabelTexts, step, 0);
  std::vector<std::pair<std::uint64_t, std::size_t>> drawn;
  for (std::size_t i = 0; i < windows.size(); ++i)
    if (!std::ranges::binary_search(active, static_cast<std::int32_t>(i)))
      drawn.emplace_back(random.bits64(static_cast<std::uint32_t>(i)), i);
  std::ranges::sort(drawn);
  std::vector<ContrastWindow> silent;
  for (const auto& [draw, number] : drawn) silent.push_back(windows[number]);
  return silent;
}

}  // namespace

bool LabelTexts::can_be_described() const { return shown.size() >= kLeastShown; }

bool LabelTexts::can_be_detected() const {
  return can_be_described() && held_top.size() + held_uniform.size() >= kLeastHeld && silent.size() >= kLeastHeld;
}

LabelTexts choose_label_texts(const LabelSubject& subject) {
  const StoredFeature& feature = subject.feature;
  Chooser chooser(subject.tokens);
  LabelTexts texts;
  std::vector<LabelText> shown_uniform;
  std::size_t next_top = 0, next_sampled = 0;
  for (bool took = true; took;) {
    took = texts.shown.size() < kShownTop && chooser.take_next(feature.top, next_top, texts.shown);
    if (texts.held_uniform.size() < kHeld) took |= chooser.take_next(feature.sampled, next_sampled, texts.held_uniform);
    if (texts.held_top.size() < kHeld) took |= chooser.take_next(feature.top, next_top, texts.held_top);
    if (shown_uniform.size() < kShownUniform) took |= chooser.take_next(feature.sampled, next_sampled, shown_uniform);
  }
  texts.shown.insert(texts.shown.end(), shown_uniform.begin(), shown_uniform.end());
  for (const auto& [sequence, position] : silent_windows(subject)) {
    if (texts.silent.size() == texts.held_top.size() + texts.held_uniform.size()) break;
    const auto tokens = std::ssize(subject.tokens.with_number(sequence).ids);
    const LabelText text{
        .sequence = sequence, .position = position, .tokens = window_around(position, tokens), .near = {}};
    if (chooser.takes(text)) texts.silent.push_back(text);
  }
  return texts;
}

std::string plain_text(const StoredTokens& tokens, const LabelText& text) { return tokens.text(ids_of(tokens, text)); }

std::string marked_text(const StoredTokens& tokens, const LabelText& text, float strongest) {
  const std::span<const std::int32_t> ids = ids_of(tokens, text);
  std::string marked;
  std::size_t done = 0;
  for (const auto& [offset, activation] : text.near) {
    const auto at = static_cast<std::size_t>(text.position + offset - text.tokens.begin);
    if (at < done || at >= ids.size()) continue;
    std::string piece = tokens.text(ids.subspan(at, 1));
    for (std::size_t line; (line = piece.find('\n')) != piece.npos;) piece.replace(line, 1, "⏎");
    const double strength = std::ceil(10.0 * static_cast<double>(activation) / static_cast<double>(strongest));
    marked += tokens.text(ids.subspan(done, at - done));
    marked += fmt::format("⟦{}:{}⟧", piece, std::clamp(static_cast<int>(strength), 1, 10));
    done = at + 1;
  }
  return marked + tokens.text(ids.subspan(done));
}

}  // namespace tadapt

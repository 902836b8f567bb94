// The texts about a feature that a judge is shown: examples, examples that are held out, and texts without activations.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "runtime/analysis/feature_store.h"

namespace tadapt {

/// A feature of a store.
struct LabelSubject {
  int layer = 0;
  const StoredFeature& feature;
  const StoredTokens& tokens;
  std::uint64_t seed = 0;
};

/// A stretch of a conversation, as long as an example's.
struct LabelText {
  std::int64_t sequence = 0;  ///< number in the corpus
  std::int32_t position = 0;  ///< of the example
  TokenRange tokens;
  std::span<const NearActivation> near;  ///< the feature's activations in it; none: it is silent there
};

/// No two of them share a token or read the same, so what is held out was not seen by who described the others.
struct LabelTexts {
  std::vector<LabelText> shown;                   ///< to be described: with the largest activations, then drawn ones
  std::vector<LabelText> held_top, held_uniform;  ///< held out: with the largest activations, drawn uniformly
  std::vector<LabelText> silent;                  ///< contrast windows without an activation, as many as are held out

  bool can_be_described() const;
  bool can_be_detected() const;
};

/// At most 10 + 5 to show, 5 + 5 held out, taken in turn, so that few texts are shared out fairly; silent ones by
/// (seed, kLabelTexts, layer, feature, window). DataError when the store's windows do not fit.
LabelTexts choose_label_texts(const LabelSubject& subject);

/// As the model read it: well-formed UTF-8 (shown_text).
std::string plain_text(const StoredTokens& tokens, const LabelText& text);
/// The same with active tokens as `⟦wait:10⟧`: 1 to 10 is ⌈10 · activation / strongest⌉. A line break in one is `⏎`.
std::string marked_text(const StoredTokens& tokens, const LabelText& text, float strongest);

}  // namespace tadapt

// LayerRecords: what is counted and kept of every feature of a layer while a corpus goes by.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/analysis/active_pairs.h"
#include "runtime/analysis/marked_corpus.h"
#include "runtime/model/token_batch.h"

namespace tadapt {

/// An example shows this many tokens before and after its own.
inline constexpr int kTokensBefore = 50;
inline constexpr int kTokensAfter = 20;

/// Bins of a histogram of activations: two an octave, [1, 1.5) · 2^n and [1.5, 2) · 2^n for n from −16 to 15; the first
/// and the last take what is beyond.
inline constexpr int kHistogramBins = 64;
int histogram_bin(float activation);
/// Where a bin begins.
float histogram_edge(int bin);

struct RecordOptions {
  std::uint64_t seed = 0;
  int top = 20;        ///< examples with the largest activations
  int sampled = 10;    ///< examples drawn uniformly from all activations
  int contrast = 256;  ///< windows of the corpus, of which is kept which features are active in them; at most 65535
};

/// What is kept of each feature: a set with a total order, or sums of integers. So parts of a corpus may be joined in
/// any order.
struct FeatureCounts {
  std::int64_t active = 0;  ///< tokens
  std::span<const std::int64_t> by_domain, by_region, by_thinking, histogram;
};

/// Another activation of the example's feature near it.
struct NearActivation {
  std::int8_t offset = 0;  ///< in tokens, within [−kTokensBefore, kTokensAfter]
  float activation = 0.0f;
};

struct Example {
  float activation = 0.0f;
  std::int64_t sequence = 0;  ///< number in the dataset
  std::int32_t position = 0;
  std::uint64_t draw = 0;            ///< of (seed, layer, feature, sequence, position); the lowest ones are sampled
  std::vector<NearActivation> near;  ///< offsets ascending; its own is one of them
};

/// Order of examples: activation descending, then sequence, then position.
bool stands_before(const Example& a, const Example& b);

/// The tokens of a batch of conversations.
struct BatchPlaces {
  std::vector<std::int64_t> sequences;  ///< of each conversation of the batch, number in the dataset
  std::vector<std::int32_t> domains;    ///< of each conversation
  std::vector<std::int32_t> of_row;     ///< conversation of each row
  std::vector<std::int32_t> positions;  ///< of each row
  std::vector<TokenPlace> places;       ///< of each row
  /// Rows [begin, end) are contrast window `number`.
  struct Window {
    std::uint16_t number = 0;
    std::int32_t begin = 0, end = 0;
  };
  std::vector<Window> windows;

  void append(std::int64_t number, std::int32_t domain, std::span<const TokenPlace> tokens);
  void clear();
};

class LayerRecords {
 public:
  LayerRecords(int layer, std::int64_t features, std::int64_t domains, const RecordOptions& options);

  int layer() const { return layer_; }
  std::int64_t features() const { return features_; }
  std::int64_t domains() const { return domains_; }

  /// Takes the pairs of a batch. NonFiniteError naming layer, feature and conversation (`place_of` makes the words).
  void add(Context& context, const FeaturePairs& pairs, const BatchPlaces& batch);
  /// As bytes, and the bytes of other conversations of the same layer taken in. DataError naming `source` when they do
  /// not fit.
  std::string encoded() const;
  void merge(std::string_view bytes, const std::string& source);

  FeatureCounts counts(std::int64_t feature) const;
  /// In stands_before order.
  std::vector<Example> top(std::int64_t feature) const;
  /// In the order of their draws.
  std::vector<Example> sampled(std::int64_t feature) const;
  /// Numbers of the contrast windows in which it is active, ascending.
  std::vector<std::int32_t> contrast(std::int64_t feature) const;

  /// Most bytes that the records of a layer of so many features take.
  static double most_bytes(std::int64_t features, std::int64_t domains, const RecordOptions& options);

 private:
  struct Kept {
    std::vector<Example> top, sampled;    // heaps: the one to go is in front
    std::vector<std::uint16_t> contrast;  // each once: windows lie in one conversation, and those are taken once
  };
  std::int64_t stride() const { return stride(domains_); }
  static std::int64_t stride(std::int64_t domains);
  void add_feature(std::int64_t feature, const FeaturePairs& pairs, const BatchPlaces& batch);
  void count(std::span<std::int64_t> counts, float activation, const TokenPlace& place, std::int32_t domain) const;

  int layer_;
  std::int64_t features_, domains_;
  RecordOptions options_;
  std::vector<std::int64_t> counts_;  // [F, stride]: active, domains, regions, thinking, histogram
  std::vector<Kept> kept_;
};

}  // namespace tadapt

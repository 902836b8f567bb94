// FeatureRecord: what an adapter's forward pass leaves for the backward pass over the same tokens.
#pragma once

#include <array>
#include <cstdint>

#include "kernels/core/context.h"
#include "kernels/sparse.h"

namespace tadapt {

/// How a leaf's gradients are computed: with all T·F activations, or with the active ones alone.
enum class Route : std::uint8_t { kDense, kSparse };

/// Pairs that a leaf of the sparse route has at most, see FeatureRecord::settle.
std::int64_t most_pairs(std::int64_t tokens, std::int64_t features, double sparse_below);

/// Activations of one leaf of tokens, and on the sparse route its active pairs. Owns their memory, which serves leaf
/// after leaf and adapter after adapter.
class FeatureRecord {
 public:
  /// For leaves of at most `tokens` tokens of `features` features, of which at most `most_pairs` are active on the
  /// sparse route.
  FeatureRecord(Device device, std::int64_t tokens, std::int64_t features, std::int64_t most_pairs);

  /// Where the forward pass writes activations: [tokens, features] fp32. Forgets the leaf before.
  Tensor begin(std::int64_t tokens, std::int64_t features);
  /// Looks at the activations just written. The sparse route is taken when there are fewer active pairs than
  /// `sparse_below` per token: a function of the leaf alone, so the same on any grid.
  void settle(Context& context, double sparse_below);

  Route route() const { return route_; }
  std::int64_t tokens() const { return activations_.size(0); }
  /// [T,F] fp32, on either route.
  const Tensor& activations() const { return activations_; }
  /// On the sparse route: the active pairs.
  const SparseFeatures& by_token() const { return by_token_; }
  /// The same by feature; sorted when first asked for.
  const FeatureMajorPairs& by_feature(Context& context);
  /// Room for one fp32 per pair.
  Tensor pair_scratch() const;
  /// Memory that adapters may grow and use as they like during a backward pass.
  enum Scratch { kActivationGradient, kRoundedInput, kRoundedCotangent, kScratches };
  Buffer& scratch(Scratch which) { return backward_[which]; }

  /// Bytes of one for such leaves.
  static std::int64_t bytes(std::int64_t tokens, std::int64_t features, std::int64_t most_pairs);

 private:
  std::int64_t most_pairs_;
  Buffer dense_, token_offsets_, feature_offsets_;
  Buffer features_, values_, tokens_, places_, scratch_;  // [most_pairs]
  std::array<Buffer, kScratches> backward_;
  Route route_ = Route::kDense;
  bool sorted_ = false;
  Tensor activations_;
  SparseFeatures by_token_;
  FeatureMajorPairs by_feature_;
};

}  // namespace tadapt

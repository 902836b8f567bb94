// The exactly sparse adapter: what touches only active (token, feature) pairs, instead of all T·F of them.
// Results equal the dense ops' up to the order of summation; sums over a feature's tokens run first token to last.
#pragma once

#include "kernels/core/check.h"
#include "kernels/core/dispatch.h"
#include "kernels/core/sparse_features.h"
#include "kernels/features.h"

namespace tadapt {

/// coefficient · Σ_p a_p · norms_{feature of p}, a term of the loss.
struct SparsityTerm {
  Tensor norms;
  float coefficient;
};

TADAPT_BACKENDS(std::int64_t count_pairs(Context& context, const Tensor& activations, const Tensor& offsets);
                void gather_pairs(Context& context, const Tensor& activations, const SparseFeatures& out);
                void sort_by_feature(Context& context, const SparseFeatures& by_token, const FeatureMajorPairs& out);
                void sparse_decode(Context& context, const SparseFeatures& features, const Tensor& decoder,
                                   const Tensor& bias, const Tensor& output);
                void sparse_feature_gradient(Context& context, const SparseFeatures& features, const Tensor& decoder,
                                             const Tensor& cotangent, const SparsityTerm& sparsity,
                                             const Tensor& gradient);
                void sparse_input_gradient(Context& context, const SparseFeatures& features, const Tensor& encoder,
                                           const Tensor& gradient);
                void sparse_weight_gradient(Context& context, const FeatureMajorPairs& by_feature, const Tensor& left,
                                            const Tensor& right, DType compute, const Tensor& gradient);
                void pair_sums(Context& context, const FeatureMajorPairs& by_feature, const Tensor& values,
                               const Tensor& sums);
                void pair_counts(Context& context, const FeatureMajorPairs& by_feature, const Tensor& counts);)

/// Most pairs that one SparseFeatures holds: places are int32.
inline constexpr std::int64_t kMostPairs = (std::int64_t{1} << 31) - 1;

/// offsets_t = number of active pairs of tokens before t; returns P, the number of all.
///   activations  [T, F] float32, at least 0, read only; active where > 0. A NaN counts too, so that it spreads to
///                results, where it is noticed, as it does from dense products.
///   offsets      [T + 1] int32, overwritten
/// Exact. ShapeError when T·F exceeds kMostPairs. On a GPU it waits for the count.
inline std::int64_t count_pairs(Context& context, const Tensor& activations, const Tensor& offsets) {
  require_tensor(context, "count_pairs: activations", activations, {DType::kFloat32}, {kAnySize, kAnySize});
  require_tensor(context, "count_pairs: offsets", offsets, {DType::kInt32}, {activations.size(0) + 1});
  require_shape(activations.elements() <= kMostPairs, "count_pairs: {} activations, places go up to {}",
                activations.elements(), kMostPairs);
  TADAPT_DISPATCH(context, count_pairs, context, activations, offsets);
}

/// Writes the pairs that count_pairs has counted.
///   activations   [T, F] float32, the same
///   out.offsets   [T + 1] int32, as count_pairs left it; read only
///   out.features, out.activations  [P], overwritten
inline void gather_pairs(Context& context, const Tensor& activations, const SparseFeatures& out) {
  require_tensor(context, "gather_pairs: activations", activations, {DType::kFloat32}, {kAnySize, kAnySize});
  require_tensor(context, "gather_pairs: offsets", out.offsets, {DType::kInt32}, {activations.size(0) + 1});
  require_tensor(context, "gather_pairs: features", out.features, {DType::kInt32}, {kAnySize});
  require_tensor(context, "gather_pairs: activations of pairs", out.activations, {DType::kFloat32},
                 {out.features.size(0)});
  TADAPT_DISPATCH(context, gather_pairs, context, activations, out);
}

/// The same pairs by feature: a counting sort, stable, so tokens ascend within a feature.
///   by_token  as gather_pairs leaves it, read only
///   out       offsets [F + 1], tokens and pairs [P] int32, overwritten
inline void sort_by_feature(Context& context, const SparseFeatures& by_token, const FeatureMajorPairs& out) {
  const std::int64_t pairs = by_token.features.size(0);
  require_tensor(context, "sort_by_feature: features", by_token.features, {DType::kInt32}, {kAnySize});
  require_tensor(context, "sort_by_feature: offsets", out.offsets, {DType::kInt32}, {kAnySize});
  require_tensor(context, "sort_by_feature: tokens", out.tokens, {DType::kInt32}, {pairs});
  require_tensor(context, "sort_by_feature: pairs", out.pairs, {DType::kInt32}, {pairs});
  TADAPT_DISPATCH(context, sort_by_feature, context, by_token, out);
}

/// output_t = bias + Σ_{i active on t} a_ti · decoder_i
///   features  as gather_pairs leaves it, read only; a is rounded to the decoder's dtype first
///   decoder   [F, D] float32 or bfloat16, read only
///   bias      [D] float32, read only
///   output    [T, D] float32, overwritten
/// In fp32, features ascending; a row depends on itself only. Costs 2·D FLOP and one decoder row per pair.
/// Oracle: the sum in double.
inline void sparse_decode(Context& context, const SparseFeatures& features, const Tensor& decoder, const Tensor& bias,
                          const Tensor& output) {
  require_tensor(context, "sparse_decode: decoder", decoder, {DType::kFloat32, DType::kBFloat16}, {kAnySize, kAnySize});
  require_tensor(context, "sparse_decode: bias", bias, {DType::kFloat32}, {decoder.size(1)});
  require_tensor(context, "sparse_decode: output", output, {DType::kFloat32},
                 {features.offsets.size(0) - 1, decoder.size(1)});
  TADAPT_DISPATCH(context, sparse_decode, context, features, decoder, bias, output);
}

/// gradient_p = ⟨cotangent_t, decoder_i⟩ + sparsity.coefficient · sparsity.norms_i   for pair p = (t, i)
///   features   as gather_pairs leaves it, read only
///   decoder    [F, D] float32 or bfloat16, read only
///   cotangent  [T, D] of the decoder's dtype, read only
///   sparsity   norms [F] float32, read only, as decoder_norms gives them
///   gradient   [P] float32, overwritten: dL/d(pre-activation), which is 0 for all pairs that are not active
/// In fp32: 64 interleaved partial sums joined in halves. Oracle: the sum in double.
inline void sparse_feature_gradient(Context& context, const SparseFeatures& features, const Tensor& decoder,
                                    const Tensor& cotangent, const SparsityTerm& sparsity, const Tensor& gradient) {
  require_tensor(context, "sparse_feature_gradient: decoder", decoder, {DType::kFloat32, DType::kBFloat16},
                 {kAnySize, kAnySize});
  require_tensor(context, "sparse_feature_gradient: cotangent", cotangent, {decoder.dtype()},
                 {features.offsets.size(0) - 1, decoder.size(1)});
  require_tensor(context, "sparse_feature_gradient: norms", sparsity.norms, {DType::kFloat32}, {decoder.size(0)});
  require_tensor(context, "sparse_feature_gradient: gradient", gradient, {DType::kFloat32},
                 {features.features.size(0)});
  TADAPT_DISPATCH(context, sparse_feature_gradient, context, features, decoder, cotangent, sparsity, gradient);
}

/// gradient_t += Σ_{i active on t} da_ti · encoder_i
///   features  pairs as gather_pairs leaves them, with da [P] float32 in place of activations: dL/d(pre-activation), as
///             sparse_feature_gradient gives it, rounded to the encoder's dtype first; read only
///   encoder   [F, D] float32 or bfloat16, read only
///   gradient  [T, D] float32, accumulated into: dL/dx
/// In fp32, features ascending; a row depends on itself only. Costs 2·D FLOP and one encoder row per pair. (Its dense
/// twin is matmul with the encoder as Layout::kInputOutput.) Oracle: the sum in double.
inline void sparse_input_gradient(Context& context, const SparseFeatures& features, const Tensor& encoder,
                                  const Tensor& gradient) {
  require_tensor(context, "sparse_input_gradient: encoder", encoder, {DType::kFloat32, DType::kBFloat16},
                 {kAnySize, kAnySize});
  require_tensor(context, "sparse_input_gradient: values of pairs", features.activations, {DType::kFloat32},
                 {features.features.size(0)});
  require_tensor(context, "sparse_input_gradient: gradient", gradient, {DType::kFloat32},
                 {features.offsets.size(0) - 1, encoder.size(1)});
  TADAPT_DISPATCH(context, sparse_input_gradient, context, features, encoder, gradient);
}

/// gradient_i = Σ_{t where i is active} left_p · right_t
///   by_feature  as sort_by_feature leaves it, read only
///   left        [P] float32 in token order (SparseFeatures' places), rounded to `compute` first; read only
///   right       [T, D] float32 or bfloat16, read only, not rounded
///   gradient    [F, D] float32, overwritten; zero for a feature that is never active
/// In fp32, tokens ascending; no atomics. On a GPU a feature's pairs are summed 256 at a time and the sums joined in
/// order; where these would need more than 64 MB of scratch for all P pairs, 512, 1024, … at a time.
/// Oracle: the sum in double.
inline void sparse_weight_gradient(Context& context, const FeatureMajorPairs& by_feature, const Tensor& left,
                                   const Tensor& right, DType compute, const Tensor& gradient) {
  require_tensor(context, "sparse_weight_gradient: left", left, {DType::kFloat32}, {by_feature.pairs.size(0)});
  require_tensor(context, "sparse_weight_gradient: right", right, {DType::kFloat32, DType::kBFloat16},
                 {kAnySize, kAnySize});
  require_tensor(context, "sparse_weight_gradient: gradient", gradient, {DType::kFloat32},
                 {by_feature.offsets.size(0) - 1, right.size(1)});
  TADAPT_DISPATCH(context, sparse_weight_gradient, context, by_feature, left, right, compute, gradient);
}

/// sums_i = Σ_{t where i is active} values_p
///   values  [P] float32 in token order, read only
///   sums    [F] float32, overwritten; summed in double, tokens ascending: the bits of column_sums
inline void pair_sums(Context& context, const FeatureMajorPairs& by_feature, const Tensor& values, const Tensor& sums) {
  require_tensor(context, "pair_sums: values", values, {DType::kFloat32}, {by_feature.pairs.size(0)});
  require_tensor(context, "pair_sums: sums", sums, {DType::kFloat32}, {by_feature.offsets.size(0) - 1});
  TADAPT_DISPATCH(context, pair_sums, context, by_feature, values, sums);
}

/// counts_i = number of tokens on which feature i is active
///   counts  [F] float32, overwritten; exact up to 2^24 tokens
inline void pair_counts(Context& context, const FeatureMajorPairs& by_feature, const Tensor& counts) {
  require_tensor(context, "pair_counts: counts", counts, {DType::kFloat32}, {by_feature.offsets.size(0) - 1});
  TADAPT_DISPATCH(context, pair_counts, context, by_feature, counts);
}

}  // namespace tadapt

// The exactly sparse adapter: what touches only active (token, feature) pairs, instead of all T·F of them.
// Results equal the dense ops' up to the order of summation; sums over a feature's tokens run first token to last.
#pragma once

#include "kernels/core/backends.h"
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
std::int64_t count_pairs(Context& context, const Tensor& activations, const Tensor& offsets);

/// Writes the pairs that count_pairs has counted.
///   activations   [T, F] float32, the same
///   out.offsets   [T + 1] int32, as count_pairs left it; read only
///   out.features, out.activations  [P], overwritten
void gather_pairs(Context& context, const Tensor& activations, const SparseFeatures& out);

/// The same pairs by feature: a counting sort, stable, so tokens ascend within a feature.
///   by_token  as gather_pairs leaves it, read only
///   out       offsets [F + 1], tokens and pairs [P] int32, overwritten
void sort_by_feature(Context& context, const SparseFeatures& by_token, const FeatureMajorPairs& out);

/// output_t = bias + Σ_{i active on t} a_ti · decoder_i
///   features  as gather_pairs leaves it, read only; a is rounded to the decoder's dtype first
///   decoder   [F, D] float32 or bfloat16, read only
///   bias      [D] float32, read only
///   output    [T, D] float32, overwritten
/// In fp32, features ascending; a row depends on itself only. Costs 2·D FLOP and one decoder row per pair.
/// Oracle: the sum in double.
void sparse_decode(Context& context, const SparseFeatures& features, const Tensor& decoder, const Tensor& bias,
                   const Tensor& output);

/// gradient_p = ⟨cotangent_t, decoder_i⟩ + sparsity.coefficient · sparsity.norms_i   for pair p = (t, i)
///   features   as gather_pairs leaves it, read only
///   decoder    [F, D] float32 or bfloat16, read only
///   cotangent  [T, D] of the decoder's dtype, read only
///   sparsity   norms [F] float32, read only, as decoder_norms gives them
///   gradient   [P] float32, overwritten: dL/d(pre-activation), which is 0 for all pairs that are not active
/// In fp32: 64 interleaved partial sums joined in halves. Oracle: the sum in double.
void sparse_feature_gradient(Context& context, const SparseFeatures& features, const Tensor& decoder,
                             const Tensor& cotangent, const SparsityTerm& sparsity, const Tensor& gradient);

/// gradient_t += Σ_{i active on t} da_ti · encoder_i
///   features  pairs as gather_pairs leaves them, with da [P] float32 in place of activations: dL/d(pre-activation), as
///             sparse_feature_gradient gives it, rounded to the encoder's dtype first; read only
///   encoder   [F, D] float32 or bfloat16, read only
///   gradient  [T, D] float32, accumulated into: dL/dx
/// In fp32, features ascending; a row depends on itself only. Costs 2·D FLOP and one encoder row per pair. (Its dense
/// twin is matmul with the encoder as Layout::kInputOutput.) Oracle: the sum in double.
void sparse_input_gradient(Context& context, const SparseFeatures& features, const Tensor& encoder,
                           const Tensor& gradient);

/// gradient_i = Σ_{t where i is active} left_p · right_t
///   by_feature  as sort_by_feature leaves it, read only
///   left        [P] float32 in token order (SparseFeatures' places), rounded to `compute` first; read only
///   right       [T, D] float32 or bfloat16, read only, not rounded
///   gradient    [F, D] float32, overwritten; zero for a feature that is never active
/// In fp32, tokens ascending; no atomics. On a GPU a feature's pairs are summed 256 at a time and the sums joined in
/// order; where these would need more than 64 MB of scratch for all P pairs, 512, 1024, … at a time.
/// Oracle: the sum in double.
void sparse_weight_gradient(Context& context, const FeatureMajorPairs& by_feature, const Tensor& left,
                            const Tensor& right, DType compute, const Tensor& gradient);

/// sums_i = Σ_{t where i is active} values_p
///   values  [P] float32 in token order, read only
///   sums    [F] float32, overwritten; summed in double, tokens ascending: the bits of column_sums
void pair_sums(Context& context, const FeatureMajorPairs& by_feature, const Tensor& values, const Tensor& sums);

/// counts_i = number of tokens on which feature i is active
///   counts  [F] float32, overwritten; exact up to 2^24 tokens
void pair_counts(Context& context, const FeatureMajorPairs& by_feature, const Tensor& counts);

}  // namespace tadapt

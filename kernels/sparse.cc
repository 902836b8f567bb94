#include "kernels/sparse.h"

#include "kernels/core/check.h"
#include "kernels/core/dispatch.h"

namespace tadapt {

std::int64_t count_pairs(Context& context, const Tensor& activations, const Tensor& offsets) {
  require_tensor(context, "count_pairs: activations", activations, {DType::kFloat32}, {kAnySize, kAnySize});
  require_tensor(context, "count_pairs: offsets", offsets, {DType::kInt32}, {activations.size(0) + 1});
  require_shape(activations.elements() <= kMostPairs, "count_pairs: {} activations, places go up to {}",
                activations.elements(), kMostPairs);
  TADAPT_DISPATCH(context, count_pairs, context, activations, offsets);
}

void gather_pairs(Context& context, const Tensor& activations, const SparseFeatures& out) {
  require_tensor(context, "gather_pairs: activations", activations, {DType::kFloat32}, {kAnySize, kAnySize});
  require_tensor(context, "gather_pairs: offsets", out.offsets, {DType::kInt32}, {activations.size(0) + 1});
  require_tensor(context, "gather_pairs: features", out.features, {DType::kInt32}, {kAnySize});
  require_tensor(context, "gather_pairs: activations of pairs", out.activations, {DType::kFloat32},
                 {out.features.size(0)});
  TADAPT_DISPATCH(context, gather_pairs, context, activations, out);
}

void sort_by_feature(Context& context, const SparseFeatures& by_token, const FeatureMajorPairs& out) {
  const std::int64_t pairs = by_token.features.size(0);
  require_tensor(context, "sort_by_feature: features", by_token.features, {DType::kInt32}, {kAnySize});
  require_tensor(context, "sort_by_feature: offsets", out.offsets, {DType::kInt32}, {kAnySize});
  require_tensor(context, "sort_by_feature: tokens", out.tokens, {DType::kInt32}, {pairs});
  require_tensor(context, "sort_by_feature: pairs", out.pairs, {DType::kInt32}, {pairs});
  TADAPT_DISPATCH(context, sort_by_feature, context, by_token, out);
}

void sparse_decode(Context& context, const SparseFeatures& features, const Tensor& decoder, const Tensor& bias,
                   const Tensor& output) {
  require_tensor(context, "sparse_decode: decoder", decoder, {DType::kFloat32, DType::kBFloat16}, {kAnySize, kAnySize});
  require_tensor(context, "sparse_decode: bias", bias, {DType::kFloat32}, {decoder.size(1)});
  require_tensor(context, "sparse_decode: output", output, {DType::kFloat32},
                 {features.offsets.size(0) - 1, decoder.size(1)});
  TADAPT_DISPATCH(context, sparse_decode, context, features, decoder, bias, output);
}

void sparse_feature_gradient(Context& context, const SparseFeatures& features, const Tensor& decoder,
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

void sparse_input_gradient(Context& context, const SparseFeatures& features, const Tensor& encoder,
                           const Tensor& gradient) {
  require_tensor(context, "sparse_input_gradient: encoder", encoder, {DType::kFloat32, DType::kBFloat16},
                 {kAnySize, kAnySize});
  require_tensor(context, "sparse_input_gradient: values of pairs", features.activations, {DType::kFloat32},
                 {features.features.size(0)});
  require_tensor(context, "sparse_input_gradient: gradient", gradient, {DType::kFloat32},
                 {features.offsets.size(0) - 1, encoder.size(1)});
  TADAPT_DISPATCH(context, sparse_input_gradient, context, features, encoder, gradient);
}

void sparse_weight_gradient(Context& context, const FeatureMajorPairs& by_feature, const Tensor& left,
                            const Tensor& right, DType compute, const Tensor& gradient) {
  require_tensor(context, "sparse_weight_gradient: left", left, {DType::kFloat32}, {by_feature.pairs.size(0)});
  require_tensor(context, "sparse_weight_gradient: right", right, {DType::kFloat32, DType::kBFloat16},
                 {kAnySize, kAnySize});
  require_tensor(context, "sparse_weight_gradient: gradient", gradient, {DType::kFloat32},
                 {by_feature.offsets.size(0) - 1, right.size(1)});
  TADAPT_DISPATCH(context, sparse_weight_gradient, context, by_feature, left, right, compute, gradient);
}

void pair_sums(Context& context, const FeatureMajorPairs& by_feature, const Tensor& values, const Tensor& sums) {
  require_tensor(context, "pair_sums: values", values, {DType::kFloat32}, {by_feature.pairs.size(0)});
  require_tensor(context, "pair_sums: sums", sums, {DType::kFloat32}, {by_feature.offsets.size(0) - 1});
  TADAPT_DISPATCH(context, pair_sums, context, by_feature, values, sums);
}

void pair_counts(Context& context, const FeatureMajorPairs& by_feature, const Tensor& counts) {
  require_tensor(context, "pair_counts: counts", counts, {DType::kFloat32}, {by_feature.offsets.size(0) - 1});
  TADAPT_DISPATCH(context, pair_counts, context, by_feature, counts);
}

}  // namespace tadapt

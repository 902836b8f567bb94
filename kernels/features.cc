#include "kernels/features.h"

#include "kernels/core/check.h"
#include "kernels/core/dispatch.h"

namespace tadapt {

void decoder_norms(Context& context, const Tensor& decoder, const Tensor& norms) {
  require_tensor(context, "decoder_norms: decoder", decoder, {DType::kFloat32}, {kAnySize, kAnySize});
  require_tensor(context, "decoder_norms: norms", norms, {DType::kFloat32}, {decoder.size(0)});
  TADAPT_DISPATCH(context, decoder_norms, context, decoder, norms);
}

void weighted_activations(Context& context, const Tensor& activation_sums, const Tensor& norms, const Tensor& total) {
  require_tensor(context, "weighted_activations: activation_sums", activation_sums, {DType::kFloat32}, {kAnySize});
  require_tensor(context, "weighted_activations: norms", norms, {DType::kFloat32}, {activation_sums.size(0)});
  require_tensor(context, "weighted_activations: total", total, {DType::kFloat64}, {1});
  TADAPT_DISPATCH(context, weighted_activations, context, activation_sums, norms, total);
}

void feature_gradient(Context& context, const Tensor& activations, const Tensor& norms, float coefficient,
                      const Tensor& gradient) {
  require_tensor(context, "feature_gradient: activations", activations, {DType::kFloat32}, {kAnySize, kAnySize});
  require_tensor(context, "feature_gradient: norms", norms, {DType::kFloat32}, {activations.size(1)});
  require_tensor(context, "feature_gradient: gradient", gradient, {DType::kFloat32},
                 {activations.size(0), activations.size(1)});
  TADAPT_DISPATCH(context, feature_gradient, context, activations, norms, coefficient, gradient);
}

void sparsity_decoder_gradient(Context& context, const Tensor& activation_sums, const Tensor& decoder,
                               const Tensor& norms, float coefficient, const Tensor& gradient) {
  require_tensor(context, "sparsity_decoder_gradient: decoder", decoder, {DType::kFloat32}, {kAnySize, kAnySize});
  require_tensor(context, "sparsity_decoder_gradient: activation_sums", activation_sums, {DType::kFloat32},
                 {decoder.size(0)});
  require_tensor(context, "sparsity_decoder_gradient: norms", norms, {DType::kFloat32}, {decoder.size(0)});
  require_tensor(context, "sparsity_decoder_gradient: gradient", gradient, {DType::kFloat32},
                 {decoder.size(0), decoder.size(1)});
  TADAPT_DISPATCH(context, sparsity_decoder_gradient, context, activation_sums, decoder, norms, coefficient, gradient);
}

void column_sums(Context& context, const Tensor& x, const Tensor& sums) {
  require_tensor(context, "column_sums: x", x, {DType::kFloat32, DType::kBFloat16}, {kAnySize, kAnySize});
  require_tensor(context, "column_sums: sums", sums, {DType::kFloat32}, {x.size(1)});
  TADAPT_DISPATCH(context, column_sums, context, x, sums);
}

void active_counts(Context& context, const Tensor& activations, const Tensor& counts) {
  require_tensor(context, "active_counts: activations", activations, {DType::kFloat32}, {kAnySize, kAnySize});
  require_tensor(context, "active_counts: counts", counts, {DType::kFloat32}, {activations.size(1)});
  require_shape(activations.size(0) <= 1 << 24, "active_counts: {} tokens, float32 counts to 2^24",
                activations.size(0));
  TADAPT_DISPATCH(context, active_counts, context, activations, counts);
}

void l0(Context& context, const Tensor& activations, const Tensor& counts) {
  require_tensor(context, "l0: activations", activations, {DType::kFloat32}, {kAnySize, kAnySize});
  require_tensor(context, "l0: counts", counts, {DType::kInt32}, {activations.size(0)});
  TADAPT_DISPATCH(context, l0, context, activations, counts);
}

}  // namespace tadapt

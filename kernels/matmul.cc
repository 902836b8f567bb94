#include "kernels/matmul.h"

#include "kernels/core/check.h"
#include "kernels/core/dispatch.h"

namespace tadapt {

std::string product_library(Device device) { TADAPT_DISPATCH_ON(device, product_library, ); }

PackedWeights pack_weights(Context& context, const Tensor& weights, Layout layout, DType compute,
                           Directions directions) {
  require_tensor(context, "pack_weights: weights", weights, {DType::kFloat32, DType::kBFloat16, DType::kFloat16},
                 {kAnySize, kAnySize});
  require_shape(weights.elements() > 0, "pack_weights: empty weights {}", weights.shape());
  require_shape(compute == DType::kFloat32 || compute == DType::kBFloat16, "pack_weights: no products in {}",
                name(compute));
  TADAPT_DISPATCH(context, pack_weights, context, weights, layout, compute, directions);
}

void repack_weights(Context& context, const Tensor& weights, PackedWeights& packed) {
  require_shape(!packed.empty(), "repack_weights: nothing was packed");
  const bool by_output = packed.layout() == Layout::kOutputInput;
  require_tensor(context, "repack_weights: weights", weights, {DType::kFloat32, DType::kBFloat16, DType::kFloat16},
                 {by_output ? packed.outputs() : packed.inputs(), by_output ? packed.inputs() : packed.outputs()});
  require_shape(weights.dtype() == packed.given(), "repack_weights: weights are {}, were packed from {}",
                name(weights.dtype()), name(packed.given()));
  TADAPT_DISPATCH(context, repack_weights, context, weights, packed);
}

void matmul(Context& context, const Tensor& x, const PackedWeights& weights, const Tensor& bias, Epilogue epilogue,
            const Tensor& y) {
  require_shape(!weights.empty(), "matmul: nothing was packed");
  require_tensor(context, "matmul: x", x, {DType::kFloat32, DType::kBFloat16}, {kAnySize, weights.inputs()});
  require_tensor(context, "matmul: y", y, {DType::kFloat32}, {x.size(0), weights.outputs()});
  if (!bias.empty()) require_tensor(context, "matmul: bias", bias, {DType::kFloat32}, {weights.outputs()});
  TADAPT_DISPATCH(context, matmul, context, x, weights, bias, epilogue, y);
}

void matmul_backward(Context& context, const Tensor& cotangent, const PackedWeights& weights, const Tensor& gradient) {
  require_shape(!weights.empty() && weights.directions() == Directions::kBoth,
                "matmul_backward: weights were not packed for both directions");
  require_tensor(context, "matmul_backward: cotangent", cotangent, {DType::kFloat32, DType::kBFloat16},
                 {kAnySize, weights.outputs()});
  require_tensor(context, "matmul_backward: gradient", gradient, {DType::kFloat32},
                 {cotangent.size(0), weights.inputs()});
  TADAPT_DISPATCH(context, matmul_backward, context, cotangent, weights, gradient);
}

void weight_gradient(Context& context, const Tensor& left, const Tensor& right, DType compute, const Tensor& gradient) {
  require_tensor(context, "weight_gradient: left", left, {DType::kFloat32, DType::kBFloat16}, {kAnySize, kAnySize});
  require_tensor(context, "weight_gradient: right", right, {DType::kFloat32, DType::kBFloat16},
                 {left.size(0), kAnySize});
  require_tensor(context, "weight_gradient: gradient", gradient, {DType::kFloat32}, {left.size(1), right.size(1)});
  require_shape(compute == DType::kFloat32 || compute == DType::kBFloat16, "weight_gradient: no products in {}",
                name(compute));
  TADAPT_DISPATCH(context, weight_gradient, context, left, right, compute, gradient);
}

}  // namespace tadapt

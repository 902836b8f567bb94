// Root-mean-square normalisation.
#pragma once

#include "kernels/core/check.h"
#include "kernels/core/dispatch.h"

namespace tadapt {

TADAPT_BACKENDS(void rms_norm(Context& context, const Tensor& x, const Tensor& weight, float epsilon, const Tensor& y);)

/// y_td = weight_d · (x_td · 1/√(mean_d x_td² + epsilon))
///   x       [T, D] float32, read only
///   weight  [D] float32, read only
///   y       [T, D] float32, overwritten; may be x itself
/// The mean of squares is summed in double in a fixed order; a row depends on itself only.
/// Source: Zhang & Sennrich, "Root Mean Square Layer Normalization", 2019. Oracle: the formula in double.
inline void rms_norm(Context& context, const Tensor& x, const Tensor& weight, float epsilon, const Tensor& y) {
  require_tensor(context, "rms_norm: x", x, {DType::kFloat32}, {kAnySize, kAnySize});
  require_tensor(context, "rms_norm: weight", weight, {DType::kFloat32}, {x.size(1)});
  require_tensor(context, "rms_norm: y", y, {DType::kFloat32}, {x.size(0), x.size(1)});
  TADAPT_DISPATCH(context, rms_norm, context, x, weight, epsilon, y);
}

}  // namespace tadapt

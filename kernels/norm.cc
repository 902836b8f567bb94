#include "kernels/norm.h"

#include "kernels/core/check.h"
#include "kernels/core/dispatch.h"

namespace tadapt {

void rms_norm(Context& context, const Tensor& x, const Tensor& weight, float epsilon, const Tensor& y) {
  require_tensor(context, "rms_norm: x", x, {DType::kFloat32}, {kAnySize, kAnySize});
  require_tensor(context, "rms_norm: weight", weight, {DType::kFloat32}, {x.size(1)});
  require_tensor(context, "rms_norm: y", y, {DType::kFloat32}, {x.size(0), x.size(1)});
  TADAPT_DISPATCH(context, rms_norm, context, x, weight, epsilon, y);
}

void rms_norm_backward(Context& context, const RmsNormInput& input, const Tensor& cotangent,
                       Linearisation linearisation, const Tensor& gradient) {
  const auto& [x, weight, epsilon] = input;
  require_tensor(context, "rms_norm_backward: x", x, {DType::kFloat32}, {kAnySize, kAnySize});
  require_tensor(context, "rms_norm_backward: weight", weight, {DType::kFloat32}, {x.size(1)});
  require_tensor(context, "rms_norm_backward: cotangent", cotangent, {DType::kFloat32}, {x.size(0), x.size(1)});
  require_tensor(context, "rms_norm_backward: gradient", gradient, {DType::kFloat32}, {x.size(0), x.size(1)});
  TADAPT_DISPATCH(context, rms_norm_backward, context, input, cotangent, linearisation, gradient);
}

}  // namespace tadapt

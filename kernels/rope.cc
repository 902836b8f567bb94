#include "kernels/rope.h"

#include "kernels/core/check.h"
#include "kernels/core/dispatch.h"

namespace tadapt {

void rope(Context& context, const Tensor& x, const Tensor& positions, double theta, Rotation rotation) {
  require_tensor(context, "rope: x", x, {DType::kFloat32}, {kAnySize, kAnySize, kAnySize});
  require_tensor(context, "rope: positions", positions, {DType::kInt32}, {x.size(0)});
  require_shape(x.size(2) % 2 == 0, "rope: x: head size {} is odd", x.size(2));
  require_shape(theta > 0, "rope: theta {} is not positive", theta);
  TADAPT_DISPATCH(context, rope, context, x, positions, theta, rotation);
}

}  // namespace tadapt

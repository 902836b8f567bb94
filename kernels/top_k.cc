#include "kernels/top_k.h"

#include "kernels/core/check.h"
#include "kernels/core/dispatch.h"

namespace tadapt {

void top_k(Context& context, const Tensor& x, Extreme extreme, const Tensor& numbers, const Tensor& ids) {
  require_tensor(context, "top_k: x", x, {DType::kFloat32}, {kAnySize, kAnySize});
  require_tensor(context, "top_k: numbers", numbers, {DType::kFloat32}, {x.size(0), kAnySize});
  require_tensor(context, "top_k: ids", ids, {DType::kInt32}, {x.size(0), numbers.size(1)});
  require_shape(0 < numbers.size(1) && numbers.size(1) <= x.size(1) && x.size(1) < std::int64_t{1} << 31,
                "top_k: {} of rows of {}", numbers.size(1), x.size(1));
  TADAPT_DISPATCH(context, top_k, context, x, extreme, numbers, ids);
}

}  // namespace tadapt

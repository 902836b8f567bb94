#include "kernels/uniform.h"

#include "kernels/core/check.h"
#include "kernels/core/dispatch.h"

namespace tadapt {

void uniform(Context& context, const RandomStream& stream, float bound, const Tensor& numbers) {
  require_tensor(context, "uniform: numbers", numbers, {DType::kFloat32, DType::kBFloat16}, {kAnySize});
  require_shape(numbers.elements() <= std::int64_t{1} << 32, "uniform: {} numbers, a stream has 2^32",
                numbers.elements());
  TADAPT_DISPATCH(context, uniform, context, UniformNumber{stream, bound}, numbers);
}

}  // namespace tadapt

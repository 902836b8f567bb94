#include "kernels/core/launch.h"
#include "kernels/uniform.h"

namespace tadapt::cpu {

void uniform(Context& context, const UniformNumber& number, const Tensor& numbers) {
  const auto fill = [&]<class T>(std::span<T> out) {
    parallel_blocks(context, numbers.elements(), kElementsPerBlock, [&](std::int64_t begin, std::int64_t end, int) {
      for (std::int64_t i = begin; i < end; ++i) out[static_cast<std::size_t>(i)] = static_cast<T>(number(i));
    });
  };
  if (numbers.dtype() == DType::kFloat32) return fill(numbers.span<float>());
  fill(numbers.span<bfloat16>());
}

}  // namespace tadapt::cpu

#include "runtime/bundle/non_finite.h"

#include <fmt/format.h>

#include <cmath>

#include "kernels/core/bfloat16.h"
#include "kernels/core/float16.h"

namespace tadapt {
namespace {

template <class T>
std::string describe(const Tensor& tensor) {
  const auto numbers = tensor.span<T>();
  std::size_t count = 0, first = 0;
  for (std::size_t i = numbers.size(); i-- > 0;) {
    if (std::isfinite(static_cast<float>(numbers[i]))) continue;
    ++count;
    first = i;
  }
  if (count == 0) return "";
  return fmt::format("{} of {} numbers are not finite, the first is number {}", count, numbers.size(), first);
}

}  // namespace

std::string non_finite_numbers(const Tensor& tensor) {
  switch (tensor.dtype()) {
    case DType::kFloat32:
      return describe<float>(tensor);
    case DType::kBFloat16:
      return describe<bfloat16>(tensor);
    case DType::kFloat16:
      return describe<float16>(tensor);
    default:
      return "";
  }
}

}  // namespace tadapt

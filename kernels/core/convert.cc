#include "kernels/core/convert.h"

#include <cstring>

#include "kernels/core/vectorise.h"

namespace tadapt::cpu {
namespace {
template <class From, class To>
TADAPT_INLINE void each(const From* from, To* to, std::size_t n) {
  for (std::size_t i = 0; i < n; ++i) to[i] = static_cast<To>(static_cast<float>(from[i]));
}

TADAPT_VECTORISED void run(const float* from, bfloat16* to, std::size_t n) { each(from, to, n); }
TADAPT_VECTORISED void run(const float* from, float16* to, std::size_t n) { each(from, to, n); }
TADAPT_VECTORISED void run(const bfloat16* from, float* to, std::size_t n) { each(from, to, n); }
TADAPT_VECTORISED void run(const bfloat16* from, float16* to, std::size_t n) { each(from, to, n); }
TADAPT_VECTORISED void run(const float16* from, float* to, std::size_t n) { each(from, to, n); }
TADAPT_VECTORISED void run(const float16* from, bfloat16* to, std::size_t n) { each(from, to, n); }
template <class T>
void run(const T* from, T* to, std::size_t n) {
  if (n > 0) std::memcpy(to, from, n * sizeof(T));
}

TADAPT_VECTORISED void round_each(float* values, std::size_t n) {
  for (std::size_t i = 0; i < n; ++i) values[i] = tadapt::round_to_bfloat16(values[i]);
}

template <class To>
void convert_to(const Tensor& from, std::span<To> to) {
  switch (from.dtype()) {
    case DType::kFloat32:
      return run(from.span<float>().data(), to.data(), to.size());
    case DType::kBFloat16:
      return run(from.span<bfloat16>().data(), to.data(), to.size());
    case DType::kFloat16:
      return run(from.span<float16>().data(), to.data(), to.size());
    default:
      throw ShapeError("no conversion from {}", name(from.dtype()));
  }
}
}  // namespace

void convert_elements(const Tensor& from, const Tensor& to) {
  require_shape(from.elements() == to.elements(), "conversion from {} to {}", from.shape(), to.shape());
  switch (to.dtype()) {
    case DType::kFloat32:
      return convert_to(from, to.span<float>());
    case DType::kBFloat16:
      return convert_to(from, to.span<bfloat16>());
    case DType::kFloat16:
      return convert_to(from, to.span<float16>());
    default:
      throw ShapeError("no conversion to {}", name(to.dtype()));
  }
}

void round_to_bfloat16(std::span<float> values) { round_each(values.data(), values.size()); }

}  // namespace tadapt::cpu

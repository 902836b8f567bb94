#include "kernels/core/elementwise.cuh"
#include "kernels/uniform.h"

namespace tadapt::cuda {
namespace {

/// Bound by arithmetic: ten rounds a number. 4 or 2 bytes written.
template <class T>
struct Draw {
  UniformNumber number;
  T* out;
  template <int kWidth>
  __device__ void run(std::int64_t i) const {
    Pack<T, kWidth> pack;
    for (int k = 0; k < kWidth; ++k) pack.values[k] = static_cast<T>(number(i + k));
    store_pack(out, i, pack);
  }
};

template <class T>
void draw(Context& context, const UniformNumber& number, const Tensor& numbers) {
  constexpr int kWidth = 16 / static_cast<int>(sizeof(T));
  T* out = cuda::numbers<T>(numbers);
  elementwise<kWidth>(context, "uniform", numbers.elements(), aligned_to_16(out), Draw<T>{number, out});
}

}  // namespace

void uniform(Context& context, const UniformNumber& number, const Tensor& numbers) {
  if (numbers.dtype() == DType::kFloat32) return draw<float>(context, number, numbers);
  draw<bfloat16>(context, number, numbers);
}

}  // namespace tadapt::cuda

#include "kernels/core/elementwise.cuh"
#include "kernels/norm.h"

namespace tadapt::cuda {
namespace {

/// With up to 32 registers a thread, as all kernels here on sm_90, 8 blocks fill an SM.
constexpr int kThreads = 256;

/// A block a row. Reads x twice (the second time from cache) and writes y: 8 bytes an element from memory.
__global__ void __launch_bounds__(kThreads)
    normalise(const float* x, const float* weight, float epsilon, std::int64_t width, float* y) {
  __shared__ double room[kThreads / kWarp];
  const float* from = x + blockIdx.x * width;
  float* to = y + blockIdx.x * width;
  double squares = 0;
  for (std::int64_t d = threadIdx.x; d < width; d += kThreads) squares += static_cast<double>(from[d]) * from[d];
  squares = block_sum(squares, room);
  const float scale =
      static_cast<float>(1.0 / sqrt(squares / static_cast<double>(width) + static_cast<double>(epsilon)));
  for (std::int64_t d = threadIdx.x; d < width; d += kThreads) to[d] = weight[d] * (from[d] * scale);
}

}  // namespace

void rms_norm(Context& context, const Tensor& x, const Tensor& weight, float epsilon, const Tensor& y) {
  launch(context, "rms_norm", {x.size(0), kThreads}, normalise, numbers<const float>(x), numbers<const float>(weight),
         epsilon, x.size(1), numbers<float>(y));
}

}  // namespace tadapt::cuda

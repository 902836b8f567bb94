#include "kernels/core/elementwise.cuh"
#include "kernels/rope.h"

namespace tadapt::cuda {
namespace {

/// With the 30 registers of sm_90 and 4 KB of shared memory 8 blocks fill an SM.
constexpr int kThreads = 256;
constexpr std::int64_t kMostPairs = 512;

/// Passed by value: a launch's parameters need no memory of their own.
struct Frequencies {
  float of[kMostPairs];
};

/// A block a token: angles once into shared memory, then all heads. Reads and writes x once: 8 bytes an element.
__global__ void __launch_bounds__(kThreads) rotate(float* x, const std::int32_t* positions, std::int64_t heads,
                                                   int half, float direction, Frequencies frequencies) {
  __shared__ float cosines[kMostPairs], sines[kMostPairs];
  const float position = static_cast<float>(positions[blockIdx.x]);
  for (int j = static_cast<int>(threadIdx.x); j < half; j += kThreads) {
    const float angle = position * frequencies.of[j];
    cosines[j] = cosf(angle);
    sines[j] = direction * sinf(angle);
  }
  __syncthreads();
  float* token = x + blockIdx.x * heads * 2 * half;
  for (std::int64_t i = threadIdx.x; i < heads * half; i += kThreads) {
    const int j = static_cast<int>(i % half);
    float* head = token + i / half * 2 * half;
    const float first = head[j], second = head[j + half];
    head[j] = first * cosines[j] - second * sines[j];
    head[j + half] = second * cosines[j] + first * sines[j];
  }
}

}  // namespace

void rope(Context& context, const Tensor& x, const Tensor& positions, double theta, Rotation rotation) {
  const std::int64_t half = x.size(2) / 2;
  require_shape(half <= kMostPairs, "rope: x: head size {}, at most {} on a GPU", x.size(2), 2 * kMostPairs);
  Frequencies frequencies{};
  const std::vector<float> host = rope_frequencies(theta, x.size(2));
  std::copy(host.begin(), host.end(), frequencies.of);
  launch(context, "rope", {x.size(0), kThreads}, rotate, numbers<float>(x), numbers<const std::int32_t>(positions),
         x.size(1), static_cast<int>(half), rotation == Rotation::kForward ? 1.0f : -1.0f, frequencies);
}

}  // namespace tadapt::cuda

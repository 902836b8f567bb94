#include "kernels/core/elementwise.cuh"
#include "kernels/norm.h"

namespace tadapt::cuda {
namespace {

/// With up to 32 registers a thread, as here on sm_90 unless said otherwise, 8 blocks fill an SM.
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

struct GradientRows {
  const float *x, *weight, *cotangent;
  float* gradient;
  float epsilon;
  Linearisation linearisation;
  std::int64_t width;
};

/// A block a row, in packs of kWidth. Reads x and the cotangent twice (the second time from cache), reads and writes
/// the gradient: 16 bytes an element from memory. 42 registers on sm_90, 5 blocks an SM.
template <int kWidth>
__global__ void __launch_bounds__(kThreads) add_gradient(GradientRows in) {
  __shared__ double room[kThreads / kWarp];
  const std::int64_t row = blockIdx.x * in.width, first = static_cast<std::int64_t>(threadIdx.x) * kWidth;
  double squares = 0, along = 0;
  for (std::int64_t d = first; d < in.width; d += kThreads * kWidth) {
    const Pack<float, kWidth> x = load_pack<kWidth>(in.x, row + d), c = load_pack<kWidth>(in.cotangent, row + d),
                              w = load_pack<kWidth>(in.weight, d);
    TADAPT_UNROLL
    for (int k = 0; k < kWidth; ++k) {
      squares += static_cast<double>(x.values[k]) * x.values[k];
      along += static_cast<double>(x.values[k]) * w.values[k] * c.values[k];
    }
  }
  squares = block_sum(squares, room);
  along = in.linearisation == Linearisation::kExact ? block_sum(along, room) : 0.0;
  const double scale = 1.0 / sqrt(squares / static_cast<double>(in.width) + static_cast<double>(in.epsilon));
  const double shrink = scale * scale * scale * along / static_cast<double>(in.width);
  const RmsNormGradient formula{static_cast<float>(scale), static_cast<float>(shrink)};
  for (std::int64_t d = first; d < in.width; d += kThreads * kWidth) {
    const Pack<float, kWidth> x = load_pack<kWidth>(in.x, row + d), c = load_pack<kWidth>(in.cotangent, row + d),
                              w = load_pack<kWidth>(in.weight, d);
    Pack<float, kWidth> sum = load_pack<kWidth>(in.gradient, row + d);
    TADAPT_UNROLL
    for (int k = 0; k < kWidth; ++k) sum.values[k] += formula(x.values[k], w.values[k], c.values[k]);
    store_pack(in.gradient, row + d, sum);
  }
}

}  // namespace

void rms_norm(Context& context, const Tensor& x, const Tensor& weight, float epsilon, const Tensor& y) {
  launch(context, "rms_norm", {x.size(0), kThreads}, normalise, numbers<const float>(x), numbers<const float>(weight),
         epsilon, x.size(1), numbers<float>(y));
}

void rms_norm_backward(Context& context, const RmsNormInput& input, const Tensor& cotangent,
                       Linearisation linearisation, const Tensor& gradient) {
  const GradientRows rows{numbers<const float>(input.x),
                          numbers<const float>(input.weight),
                          numbers<const float>(cotangent),
                          numbers<float>(gradient),
                          input.epsilon,
                          linearisation,
                          input.x.size(1)};
  const bool packs = rows.width % 4 == 0 && aligned_to_16(rows.x, rows.weight, rows.cotangent, rows.gradient);
  launch(context, "rms_norm_backward", {input.x.size(0), kThreads}, packs ? add_gradient<4> : add_gradient<1>, rows);
}

}  // namespace tadapt::cuda

#include "kernels/core/elementwise.cuh"
#include "kernels/core/exponential.h"
#include "kernels/losses.h"

namespace tadapt::cuda {
namespace {

/// With up to 32 registers a thread, as here on sm_90 unless said otherwise, 8 blocks fill an SM.
constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarp;

/// A block a row; reads both rows once and writes one: 12 bytes an element, 10 with a bf16 target (34 registers, 6
/// blocks an SM).
template <class Target>
__global__ void __launch_bounds__(kThreads) row_error(const float* prediction, const Target* target, float scale,
                                                      std::int64_t width, float* gradient, double* errors) {
  __shared__ double room[kWarps];
  const std::int64_t row = blockIdx.x * width;
  double sum = 0;
  for (std::int64_t d = threadIdx.x; d < width; d += kThreads) {
    const float difference = prediction[row + d] - static_cast<float>(target[row + d]);
    sum += static_cast<double>(difference) * difference;
    if (gradient != nullptr) gradient[row + d] = scale * difference;
  }
  sum = block_sum(sum, room);
  if (threadIdx.x == 0) errors[blockIdx.x] = sum;
}

/// A block a row, in packs of kWidth; reads both rows once, reads and writes the gradient: 16 bytes an element (34
/// registers, 6 blocks an SM), 14 with a bf16 target.
template <class Target, int kWidth>
__global__ void __launch_bounds__(kThreads) add_row_error(const float* prediction, const Target* target, float scale,
                                                          std::int64_t width, float* gradient, double* errors) {
  __shared__ double room[kWarps];
  const std::int64_t row = blockIdx.x * width;
  double sum = 0;
  for (std::int64_t d = static_cast<std::int64_t>(threadIdx.x) * kWidth; d < width; d += kThreads * kWidth) {
    const Pack<float, kWidth> p = load_pack<kWidth>(prediction, row + d);
    const Pack<Target, kWidth> t = load_pack<kWidth>(target, row + d);
    Pack<float, kWidth> g = load_pack<kWidth>(gradient, row + d);
    TADAPT_UNROLL
    for (int k = 0; k < kWidth; ++k) {
      const float difference = p.values[k] - static_cast<float>(t.values[k]);
      sum += static_cast<double>(difference) * difference;
      g.values[k] += scale * difference;
    }
    store_pack(gradient, row + d, g);
  }
  sum = block_sum(sum, room);
  if (threadIdx.x == 0) errors[blockIdx.x] = sum;
}

/// A block a row; reads each number once.
template <class T>
__global__ void __launch_bounds__(kThreads) row_squares(const T* x, std::int64_t width, double* norms) {
  __shared__ double room[kWarps];
  double sum = 0;
  for (std::int64_t d = threadIdx.x; d < width; d += kThreads) {
    const float number = static_cast<float>(x[blockIdx.x * width + d]);
    sum += static_cast<double>(number) * number;
  }
  sum = block_sum(sum, room);
  if (threadIdx.x == 0) norms[blockIdx.x] = sum;
}

/// One block: there are few rows, and one place for their sum. 8 bytes a row.
__global__ void __launch_bounds__(kThreads) add_rows(const double* rows, std::int64_t n, double* total) {
  __shared__ double room[kWarps];
  double sum = 0;
  for (std::int64_t i = threadIdx.x; i < n; i += kThreads) sum += rows[i];
  sum = block_sum(sum, room);
  if (threadIdx.x == 0) *total = sum;
}

/// The largest logit and its lowest index.
struct Top {
  float logit;
  std::int32_t index;
};
__device__ Top better(Top a, Top b) {
  if (b.logit > a.logit || (b.logit == a.logit && b.index < a.index)) return b;
  return a;
}
__device__ Top block_top(Top top, Top* room) {
  for (int distance = kWarp / 2; distance > 0; distance /= 2) {
    const Top other{__shfl_xor_sync(kAllLanes, top.logit, distance), __shfl_xor_sync(kAllLanes, top.index, distance)};
    top = better(top, other);
  }
  if (threadIdx.x % kWarp == 0) room[threadIdx.x / kWarp] = top;
  __syncthreads();
  top = room[0];
  for (int warp = 1; warp < kWarps; ++warp) top = better(top, room[warp]);
  __syncthreads();
  return top;
}
__device__ Top row_top(const float* x, std::int64_t n, Top* room) {
  Top top{x[0], 0};
  for (std::int64_t i = threadIdx.x; i < n; i += kThreads) top = better(top, {x[i], static_cast<std::int32_t>(i)});
  return block_top(top, room);
}

struct KlPointers {
  double* kl;
  std::int32_t *target_argmax, *argmax;
  float* top_probability;
};

/// A block a row; goes over both rows twice, the second time from cache where a row fits: 8 to 16 bytes a logit pair.
__global__ void __launch_bounds__(kThreads)
    row_kl(const float* target_logits, const float* logits, std::int64_t vocabulary, KlPointers out) {
  __shared__ Top tops[kWarps];
  __shared__ double room[kWarps];
  const float* target = target_logits + blockIdx.x * vocabulary;
  const float* model = logits + blockIdx.x * vocabulary;
  const Top target_top = row_top(target, vocabulary, tops);
  const Top model_top = row_top(model, vocabulary, tops);
  double target_sum = 0, model_sum = 0, difference = 0;
  for (std::int64_t v = threadIdx.x; v < vocabulary; v += kThreads) {
    const double weight = exponential(target[v] - target_top.logit);
    target_sum += weight;
    model_sum += static_cast<double>(exponential(model[v] - model_top.logit));
    difference += weight * ((static_cast<double>(target[v]) - target_top.logit) -
                            (static_cast<double>(model[v]) - model_top.logit));
  }
  target_sum = block_sum(target_sum, room);
  model_sum = block_sum(model_sum, room);
  difference = block_sum(difference, room);
  if (threadIdx.x != 0) return;
  out.kl[blockIdx.x] = difference / target_sum - log(target_sum) + log(model_sum);
  out.target_argmax[blockIdx.x] = target_top.index;
  out.argmax[blockIdx.x] = model_top.index;
  out.top_probability[blockIdx.x] = static_cast<float>(1.0 / target_sum);
}

}  // namespace

void squared_error(Context& context, const Tensor& prediction, const Tensor& target, float gradient_scale,
                   const Tensor& gradient, const Tensor& row_errors) {
  const Grid grid{prediction.size(0), kThreads};
  const auto run = [&]<class Target>(const Target* goal) {
    launch(context, "squared_error", grid, row_error<Target>, numbers<const float>(prediction), goal, gradient_scale,
           prediction.size(1), numbers<float>(gradient), numbers<double>(row_errors));
  };
  if (target.dtype() == DType::kFloat32) return run(numbers<const float>(target));
  run(numbers<const bfloat16>(target));
}

void add_squared_error(Context& context, const Tensor& prediction, const Tensor& target, float gradient_scale,
                       const Tensor& gradient, const Tensor& row_errors) {
  const auto run = [&]<class Target>(const Target* goal) {
    const auto* from = numbers<const float>(prediction);
    auto* to = numbers<float>(gradient);
    const bool packs = prediction.size(1) % 4 == 0 && aligned_to_16(from, goal, to);
    launch(context, "add_squared_error", {prediction.size(0), kThreads},
           packs ? add_row_error<Target, 4> : add_row_error<Target, 1>, from, goal, gradient_scale, prediction.size(1),
           to, numbers<double>(row_errors));
  };
  if (target.dtype() == DType::kFloat32) return run(numbers<const float>(target));
  run(numbers<const bfloat16>(target));
}

void row_square_norms(Context& context, const Tensor& x, const Tensor& norms) {
  const Grid grid{x.size(0), kThreads};
  if (x.dtype() == DType::kFloat32)
    launch(context, "row_square_norms", grid, row_squares<float>, numbers<const float>(x), x.size(1),
           numbers<double>(norms));
  else
    launch(context, "row_square_norms", grid, row_squares<bfloat16>, numbers<const bfloat16>(x), x.size(1),
           numbers<double>(norms));
}

void row_total(Context& context, const Tensor& rows, const Tensor& total) {
  launch(context, "row_total", {1, kThreads}, add_rows, numbers<const double>(rows), rows.size(0),
         numbers<double>(total));
}

void token_kl(Context& context, const Tensor& target_logits, const Tensor& logits, const TokenKlOutput& out) {
  launch(context, "token_kl", {logits.size(0), kThreads}, row_kl, numbers<const float>(target_logits),
         numbers<const float>(logits), logits.size(1),
         KlPointers{numbers<double>(out.kl), numbers<std::int32_t>(out.target_argmax),
                    numbers<std::int32_t>(out.argmax), numbers<float>(out.target_top_probability)});
}

}  // namespace tadapt::cuda

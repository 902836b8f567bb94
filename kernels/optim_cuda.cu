#include "kernels/core/elementwise.cuh"
#include "kernels/core/memory.h"
#include "kernels/optim.h"

namespace tadapt::cuda {
namespace {

/// With up to 32 registers a thread, as here on sm_90 unless said otherwise, 8 blocks fill an SM.
constexpr int kThreads = 256;

/// A block of threads a block of numbers; 4 bytes an element.
__global__ void __launch_bounds__(kThreads) square_sum(const float* x, std::int64_t n, double* sums) {
  __shared__ double room[kThreads / kWarp];
  const std::int64_t begin = blockIdx.x * kSumBlock, end = min(n, begin + kSumBlock);
  double sum = 0;
  for (std::int64_t i = begin + threadIdx.x; i < end; i += kThreads) sum += static_cast<double>(x[i]) * x[i];
  sum = block_sum(sum, room);
  if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

/// The same over y + x, which y becomes; 12 bytes an element.
__global__ void __launch_bounds__(kThreads) add_and_square(const float* x, float* y, std::int64_t n, double* sums) {
  __shared__ double room[kThreads / kWarp];
  const std::int64_t begin = blockIdx.x * kSumBlock, end = min(n, begin + kSumBlock);
  double sum = 0;
  for (std::int64_t i = begin + threadIdx.x; i < end; i += kThreads) {
    const float joined = y[i] + x[i];
    y[i] = joined;
    sum += static_cast<double>(joined) * joined;
  }
  sum = block_sum(sum, room);
  if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

/// One pass: 16 bytes read and 12 written an element, and the working copy's 2 or 4. 46 registers, 5 blocks an SM.
template <class Working>
struct Update {
  float *master, *first, *second;
  const float* gradient;
  Working* working;
  AdamWElement element;
  template <int kWidth>
  __device__ void run(std::int64_t i) const {
    Pack<float, kWidth> w = load_pack<kWidth>(master, i), m = load_pack<kWidth>(first, i),
                        v = load_pack<kWidth>(second, i);
    const Pack<float, kWidth> g = load_pack<kWidth>(gradient, i);
    Pack<Working, kWidth> copy;
    for (int k = 0; k < kWidth; ++k) {
      element(w.values[k], m.values[k], v.values[k], g.values[k]);
      copy.values[k] = static_cast<Working>(w.values[k]);
    }
    store_pack(master, i, w);
    store_pack(first, i, m);
    store_pack(second, i, v);
    if (working != nullptr) store_pack(working, i, copy);
  }
};

template <class Working>
void update(Context& context, const AdamWTensors& tensors, const AdamWStep& step) {
  const Update<Working> body{numbers<float>(tensors.master),        numbers<float>(tensors.first_moment),
                             numbers<float>(tensors.second_moment), numbers<const float>(tensors.gradient),
                             numbers<Working>(tensors.working),     AdamWElement(step)};
  elementwise<4>(context, "adamw", tensors.master.elements(),
                 aligned_to_16(body.master, body.first, body.second, body.gradient, body.working), body);
}

/// The lowest index of a number that is not finite; 4 bytes an element.
struct FindNonFinite {
  const float* x;
  unsigned long long* found;
  template <int kWidth>
  __device__ void run(std::int64_t i) const {
    const Pack<float, kWidth> pack = load_pack<kWidth>(x, i);
    for (int k = 0; k < kWidth; ++k)
      if ((std::bit_cast<std::uint32_t>(pack.values[k]) & 0x7f800000u) == 0x7f800000u)
        atomicMin(found, static_cast<unsigned long long>(i + k));
  }
};

}  // namespace

void block_square_sums(Context& context, const Tensor& x, const Tensor& sums) {
  launch(context, "block_square_sums", {sum_blocks(x.size(0)), kThreads}, square_sum, numbers<const float>(x),
         x.size(0), numbers<double>(sums));
}

void add_with_square_sums(Context& context, const Tensor& x, const Tensor& y, const Tensor& sums) {
  launch(context, "add_with_square_sums", {sum_blocks(x.size(0)), kThreads}, add_and_square, numbers<const float>(x),
         numbers<float>(y), x.size(0), numbers<double>(sums));
}

void adamw(Context& context, const AdamWTensors& tensors, const AdamWStep& step) {
  if (tensors.working.dtype() == DType::kBFloat16) return update<bfloat16>(context, tensors, step);
  update<float>(context, tensors, step);
}

std::int64_t first_non_finite(Context& context, const Tensor& x) {
  std::int64_t found = -1;  // as an unsigned number, the largest
  const Tensor host = Tensor::of(std::span(&found, 1), {1});
  const Tensor place(context.scratch(0, sizeof found), DType::kInt64, {1}, Device::kCuda);
  cuda::copy(context, host, place);
  const FindNonFinite body{numbers<const float>(x), static_cast<unsigned long long*>(place.data())};
  elementwise<4>(context, "first_non_finite", x.size(0), aligned_to_16(body.x), body);
  cuda::copy(context, place, host);
  cuda::synchronize(context);
  return found;
}

}  // namespace tadapt::cuda

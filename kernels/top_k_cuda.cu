#include "kernels/core/elementwise.cuh"
#include "kernels/top_k.h"

namespace tadapt::cuda {
namespace {

constexpr int kThreads = 512;
constexpr int kWarps = kThreads / kWarp;

/// The first of all threads' candidates; an id below 0 is none. `room` is free again on return.
__device__ Ranked block_first(Ranked best, RankOrder before, Ranked* room) {
  const auto take = [&](const Ranked& other) {
    if (other.id >= 0 && (best.id < 0 || before(other, best))) best = other;
  };
  for (int distance = kWarp / 2; distance > 0; distance /= 2) {
    const Ranked other{__shfl_xor_sync(kAllLanes, best.number, distance),
                       __shfl_xor_sync(kAllLanes, best.id, distance)};
    take(other);
  }
  if (threadIdx.x % kWarp == 0) room[threadIdx.x / kWarp] = best;
  __syncthreads();
  best = room[0];
  for (int warp = 1; warp < kWarps; ++warp) take(room[warp]);
  __syncthreads();
  return best;
}

/// A block a row: k times the first of the numbers that stand behind the last one found. Reads 4·k bytes a number, all
/// but the first 4 from cache where a row fits.
__global__ void __launch_bounds__(kThreads)
    first_of_row(const float* x, std::int32_t n, std::int32_t k, RankOrder before, float* numbers, std::int32_t* ids) {
  __shared__ Ranked room[kWarps];
  const float* row = x + static_cast<std::int64_t>(blockIdx.x) * n;
  Ranked last{0.0f, -1};
  for (std::int32_t i = 0; i < k; ++i) {
    Ranked best{0.0f, -1};
    for (std::int32_t id = static_cast<std::int32_t>(threadIdx.x); id < n; id += kThreads) {
      const Ranked candidate{row[id], id};
      if (last.id >= 0 && !before(last, candidate)) continue;
      if (best.id < 0 || before(candidate, best)) best = candidate;
    }
    last = block_first(best, before, room);
    if (threadIdx.x == 0) {
      numbers[static_cast<std::int64_t>(blockIdx.x) * k + i] = last.number;
      ids[static_cast<std::int64_t>(blockIdx.x) * k + i] = last.id;
    }
  }
}

}  // namespace

void top_k(Context& context, const Tensor& x, Extreme extreme, const Tensor& numbers, const Tensor& ids) {
  launch(context, "top_k", {x.size(0), kThreads}, first_of_row, cuda::numbers<const float>(x),
         static_cast<std::int32_t>(x.size(1)), static_cast<std::int32_t>(numbers.size(1)), RankOrder{extreme},
         cuda::numbers<float>(numbers), cuda::numbers<std::int32_t>(ids));
}

}  // namespace tadapt::cuda

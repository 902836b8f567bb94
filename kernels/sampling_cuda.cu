#include <climits>

#include "kernels/core/elementwise.cuh"
#include "kernels/sampling.h"

namespace tadapt::cuda {
namespace {

constexpr int kThreads = 512;
constexpr int kWarps = kThreads / kWarp;
using Weight = std::uint64_t;

/// The largest logit, its lowest id, and whether a logit is NaN.
struct Best {
  float logit;
  std::int32_t id;
  int nan;
};
__device__ Best better(Best a, Best b) {
  const bool other = b.logit > a.logit || (b.logit == a.logit && b.id < a.id);
  return {other ? b.logit : a.logit, other ? b.id : a.id, a.nan | b.nan};
}
__device__ Best block_best(Best best, Best* room) {
  for (int distance = kWarp / 2; distance > 0; distance /= 2) {
    const Best other{__shfl_xor_sync(kAllLanes, best.logit, distance), __shfl_xor_sync(kAllLanes, best.id, distance),
                     __shfl_xor_sync(kAllLanes, best.nan, distance)};
    best = better(best, other);
  }
  if (threadIdx.x % kWarp == 0) room[threadIdx.x / kWarp] = best;
  __syncthreads();
  best = room[0];
  for (int warp = 1; warp < kWarps; ++warp) best = better(best, room[warp]);
  __syncthreads();
  return best;
}

/// A row of logits as a block sees it.
struct Row {
  const float* logits;
  std::int32_t size;
  TokenWeight weigh;

  /// Σ of the weights for which `take` says so.
  template <class Take>
  __device__ Weight sum(Weight* room, Take take) const {
    Weight own = 0;
    for (std::int32_t v = static_cast<std::int32_t>(threadIdx.x); v < size; v += kThreads) {
      const Weight weight = weigh(logits[v]);
      if (take(weight)) own += weight;
    }
    return block_sum(own, room);
  }
};

/// The greatest weight whose tokens, with all heavier ones, weigh enough: bit by bit, a pass over the row each.
__device__ Nucleus nucleus(const Row& row, Weight total, double top_p, Weight* room) {
  const Weight needed = needed_weight(total, top_p);
  Weight weight = 0;
  for (int bit = 40; bit >= 0; --bit) {
    const Weight trial = weight | Weight{1} << bit;
    if (row.sum(room, [=](Weight w) { return w >= trial; }) >= needed) weight = trial;
  }
  const Weight heavier = row.sum(room, [=](Weight w) { return w > weight; });
  return nucleus_of(weight, heavier, needed);
}

/// What the tokens of one thread, neighbours, bring to the nucleus.
struct Share {
  Weight heavier, ties;
};

/// The token of a draw: threads take equal runs of ids, thread 0 finds the run, its thread walks it.
__device__ void draw(const Row& row, const Nucleus& kept, Weight left, Share* shares, std::int32_t* token) {
  __shared__ Weight left_before, ties_before;
  __shared__ int owner;
  const std::int32_t run = (row.size + kThreads - 1) / kThreads;
  const std::int32_t begin = static_cast<std::int32_t>(threadIdx.x) * run;
  const std::int32_t end = begin + run < row.size ? begin + run : row.size;
  Share own{0, 0};
  for (std::int32_t v = begin; v < end; ++v) {
    const Weight weight = row.weigh(row.logits[v]);
    if (weight > kept.weight) own.heavier += weight;
    if (weight == kept.weight) ++own.ties;
  }
  shares[threadIdx.x] = own;
  __syncthreads();
  if (threadIdx.x == 0) {
    Weight before = left, ties = kept.ties;
    for (int thread = 0; thread < kThreads; ++thread) {
      const Weight taken = shares[thread].ties < ties ? shares[thread].ties : ties;
      const Weight weight = shares[thread].heavier + taken * kept.weight;
      if (before < weight) {
        owner = thread;
        break;
      }
      before -= weight;
      ties -= taken;
    }
    left_before = before;
    ties_before = ties;
  }
  __syncthreads();
  if (static_cast<int>(threadIdx.x) != owner) return;
  Weight before = left_before, ties = ties_before;
  for (std::int32_t v = begin; v < end; ++v) {
    const Weight weight = row.weigh(row.logits[v]);
    if (weight < kept.weight || (weight == kept.weight && ties == 0)) continue;
    if (weight == kept.weight) --ties;
    if (before < weight) {
      *token = v;
      return;
    }
    before -= weight;
  }
}

/// A block a row. Reads the row once for temperature 0, 4 times without and 46 times with a nucleus, all but the first
/// from cache where a row fits: 4 bytes a logit.
__global__ void __launch_bounds__(kThreads)
    sample(const float* logits, std::int32_t size, const std::int64_t* draws, SamplingRule rule, std::int32_t* tokens) {
  __shared__ Best bests[kWarps];
  __shared__ Weight room[kWarps];
  __shared__ Share shares[kThreads];
  const float* numbers = logits + static_cast<std::int64_t>(blockIdx.x) * size;
  Best best{-INFINITY, INT_MAX, 0};
  for (std::int32_t v = static_cast<std::int32_t>(threadIdx.x); v < size; v += kThreads)
    best = better(best, {numbers[v], v, numbers[v] != numbers[v] ? 1 : 0});
  best = block_best(best, bests);
  const bool none = best.nan != 0 || best.logit == INFINITY || best.logit == -INFINITY;
  std::int32_t* token = tokens + blockIdx.x;
  if (none || rule.temperature == 0.0f) {
    if (threadIdx.x == 0) *token = none ? -1 : best.id;
    return;
  }
  const Row row{numbers, size, {best.logit, rule.temperature}};
  const Weight total = row.sum(room, [](Weight) { return true; });
  const Nucleus kept =
      rule.top_p < 1.0 ? nucleus(row, total, rule.top_p, room) : Nucleus{0, static_cast<Weight>(size), total};
  draw(row, kept, scaled_draw(static_cast<Weight>(draws[blockIdx.x]), kept.total), shares, token);
}

}  // namespace

void sample_tokens(Context& context, const Tensor& logits, const Tensor& draws, const SamplingRule& rule,
                   const Tensor& tokens) {
  launch(context, "sample_tokens", {logits.size(0), kThreads}, sample, numbers<const float>(logits),
         static_cast<std::int32_t>(logits.size(1)), numbers<const std::int64_t>(draws), rule,
         numbers<std::int32_t>(tokens));
}

}  // namespace tadapt::cuda

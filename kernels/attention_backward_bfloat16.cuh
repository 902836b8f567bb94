// Gradients of attention on tensor cores. Included by attention_backward_cuda.cu only.
#pragma once

#include "kernels/attention_backward.h"
#include "kernels/attention_bfloat16.cuh"

namespace tadapt::cuda {

struct Bfloat16Backward {
  Bfloat16Rows query, cotangent, key, value;
  const float *log_sums, *deltas;
  float *query_gradient, *key_gradient, *value_gradient;
  AttentionSizes sizes;
  float scale;  ///< 1 / √h
};

/// 64 rows stay, a warp takes 16 of them; 32 rows pass by at once, the next ones come meanwhile. Heads of more than 128
/// numbers are summed by two blocks, half a head each: registers hold no more.
template <int kHeadSizeOf>
struct BackwardTiling : Tiling<kHeadSizeOf, 1, 32> {
  using Base = Tiling<kHeadSizeOf, 1, 32>;
  static constexpr int kStages = 2;
  static constexpr int kOwned = std::min(kHeadSizeOf, 128), kParts = kHeadSizeOf / kOwned;
  static constexpr std::size_t kSharedBytes =
      sizeof(bfloat16) * (2 * Base::kRows + 2 * kStages * Base::kKeys) * Base::kStride +
      sizeof(float) * 2 * kStages * Base::kKeys;
  using Gradient = SumFragment[1][kOwned / 8];
};

/// Rows in shared memory: two kinds that stay and two that pass by, and of those that pass two numbers each.
template <class T>
struct PassingRows {
  __device__ SharedRows<T> stays(int which) const {
    return {dynamic_shared<bfloat16>() + which * T::kRows * T::kStride};
  }
  __device__ SharedRows<T> passes(int which, int stage) const {
    return {stays(2).numbers + (stage * 2 + which) * T::kKeys * T::kStride};
  }
  __device__ float* numbers(int which, int stage) const {
    return reinterpret_cast<float*>(passes(0, T::kStages).numbers) + (stage * 2 + which) * T::kKeys;
  }
};

/// pairs of bf16, as a left operand: what two neighbouring columns of `scores` become by value(n, i, score), where n
/// counts columns of eight and i is the number in its fragment.
template <class T, class Value>
__device__ void take_pairs(typename T::Scores& scores, Value value, typename T::Weights& pairs) {
  TADAPT_UNROLL
  for (int n = 0; n < T::kKeys / 8; ++n) {
    TADAPT_UNROLL
    for (int half = 0; half < 2; ++half) {
      const float lower = value(n, 2 * half, scores[0][n].values[2 * half]);
      const float upper = value(n, 2 * half + 1, scores[0][n].values[2 * half + 1]);
      pairs[0][n / 2].pairs[n % 2 * 2 + half] = pair_of(lower, upper);
    }
  }
}

/// Where a block's sums go: rows [first, end) of one of `heads` heads, its numbers from `begin` on.
struct GradientPlace {
  std::int32_t first, end;
  int heads, head, size, begin;
};
template <class T>
__device__ void store_gradient(const Place& place, const typename T::Gradient& sums, const GradientPlace& at,
                               float* to) {
  TADAPT_UNROLL
  for (int half = 0; half < 2; ++half) {
    const std::int32_t row = at.first + 8 * half + place.row();
    if (row >= at.end) continue;
    float* numbers = to + (static_cast<std::int64_t>(row) * at.heads + at.head) * at.size;
    TADAPT_UNROLL
    for (int n = 0; n < T::kOwned / 8; ++n) {
      TADAPT_UNROLL
      for (int i = 0; i < 2; ++i) {
        const int d = at.begin + 8 * n + place.column() + i;
        if (d < at.size) numbers[d] = sums[0][n].values[2 * half + i];
      }
    }
  }
}

/// A block a tile of keys, a group and a part of the head; the group's queries and cotangents pass by, head by head,
/// from the tile's first position on. For its 64 keys a block reads 4·h bytes a query row that sees them (from
/// second-level cache, but for the first block), 8·h where the head has two parts, reads 4·h and writes 8·h a key. On
/// sm_90, of 128 threads: h <= 64: 130 registers (kRelp: 79), 37 KB, 3 (6) blocks an SM; h <= 128: 242 (128), 70 KB, 2
/// (3); h <= 256: 242 (127), 136 KB, 1.
template <class T, Linearisation kLinearisation>
__global__ void __launch_bounds__(T::kThreads) key_gradients_bfloat16(Bfloat16Backward in, KeyTiles tiles) {
  constexpr bool kExact = kLinearisation == Linearisation::kExact;
  enum { kKey, kValue };
  enum { kQuery, kCotangent };
  enum { kLogSum, kDelta };
  const AttentionSizes& sizes = in.sizes;
  const int each = sizes.groups * T::kParts, job = static_cast<int>(blockIdx.x) % each;
  const KeyTile tile = tiles.tiles[static_cast<int>(blockIdx.x) / each];
  const int group = job / T::kParts, part = job % T::kParts, first_head = group * sizes.heads_per_group();
  const Place place;
  const PassingRows<T> shared;
  const std::int32_t begin = tile.begin + place.warp * T::kWarpRows;  // this warp's first key
  const int steps = (tile.stop - tile.begin + T::kKeys - 1) / T::kKeys, all = steps * sizes.heads_per_group();

  const auto begin_step = [&](int step) {
    const int head = first_head + step / steps, stage = step % T::kStages;
    const std::int32_t first = tile.begin + step % steps * T::kKeys;
    begin_rows<T>(in.query, head, first, tile.stop, shared.passes(kQuery, stage));
    begin_rows<T>(in.cotangent, head, first, tile.stop, shared.passes(kCotangent, stage));
    const int i = static_cast<int>(threadIdx.x);
    if (i >= T::kKeys) return;
    const std::int64_t at = static_cast<std::int64_t>(first + i) * sizes.heads + head;
    // Behind the last query weights are 0.
    shared.numbers(kLogSum, stage)[i] =
        first + i < tile.stop ? in.log_sums[at] * std::numbers::log2e_v<float> : INFINITY;
    if (kExact) shared.numbers(kDelta, stage)[i] = first + i < tile.stop ? in.deltas[at] : 0.0f;
  };

  begin_rows<T, T::kRows>(in.key, group, tile.begin, tile.end, shared.stays(kKey));
  if (kExact) begin_rows<T, T::kRows>(in.value, group, tile.begin, tile.end, shared.stays(kValue));
  begin_step(0);
  const float exponent = in.scale * std::numbers::log2e_v<float>;
  typename T::Gradient key_sums = {}, value_sums = {};
  for (int step = 0; step < all; ++step) {
    finish_copies();
    __syncthreads();
    if (step + 1 < all) begin_step(step + 1);
    const int stage = step % T::kStages;
    const std::int32_t first = tile.begin + step % steps * T::kKeys;
    if (first + T::kKeys <= begin || begin >= tile.end) continue;  // no query that sees a key of this warp
    const float *log_sums = shared.numbers(kLogSum, stage), *deltas = shared.numbers(kDelta, stage);
    const auto is_seen = [&](int n, int i) {
      return begin + place.row() + i / 2 * 8 <= first + 8 * n + place.column() + i % 2;
    };
    typename T::Scores weights;
    typename T::Weights pairs;
    multiply_keys<T>(place, shared.stays(kKey), shared.passes(kQuery, stage), weights);
    const auto weigh = [&](int n, int i, float& score) {
      const float weight = power_of_two(score * exponent - log_sums[8 * n + place.column() + i % 2]);
      return score = is_seen(n, i) ? weight : 0.0f;
    };
    take_pairs<T>(weights, weigh, pairs);
    multiply_values<T>(place, pairs, shared.passes(kCotangent, stage), part * T::kOwned / 8, value_sums);
    if constexpr (kExact) {
      typename T::Scores products;
      multiply_keys<T>(place, shared.stays(kValue), shared.passes(kCotangent, stage), products);
      const auto slope = [&](int n, int i, float& product) {
        const float delta = deltas[8 * n + place.column() + i % 2];
        return AttentionSlope{weights[0][n].values[i], delta, in.scale}(product);
      };
      take_pairs<T>(products, slope, pairs);
      multiply_values<T>(place, pairs, shared.passes(kQuery, stage), part * T::kOwned / 8, key_sums);
    }
  }
  const GradientPlace at{begin, tile.end, sizes.groups, group, sizes.size, part * T::kOwned};
  store_gradient<T>(place, value_sums, at, in.value_gradient);
  if constexpr (kExact) store_gradient<T>(place, key_sums, at, in.key_gradient);
}

/// A block a tile of query rows, a head and a part of it; keys and values pass by. For its 64 rows a block reads 4·h
/// bytes a key that they see, 8·h where the head has two parts, reads 4·h and writes 4·h a row. On sm_90: h <= 64: 126
/// registers, 4 blocks an SM; h <= 128: 166, 3; h <= 256: 162, 1; shared memory as above.
template <class T>
__global__ void __launch_bounds__(T::kThreads) query_gradients_bfloat16(Bfloat16Backward in, QueryTiles tiles) {
  enum { kQuery, kCotangent };
  enum { kKey, kValue };
  const AttentionSizes& sizes = in.sizes;
  const int each = sizes.heads * T::kParts, job = static_cast<int>(blockIdx.x) % each;
  const QueryTile tile = tiles.tiles[static_cast<int>(blockIdx.x) / each];
  const int head = job / T::kParts, part = job % T::kParts, group = sizes.group_of(head);
  const Place place;
  const PassingRows<T> shared;
  const std::int32_t begin = tile.begin + place.warp * T::kWarpRows;  // this warp's first row
  const auto begin_step = [&](std::int32_t first, int stage) {
    begin_rows<T>(in.key, group, first, tile.end, shared.passes(kKey, stage));
    begin_rows<T>(in.value, group, first, tile.end, shared.passes(kValue, stage));
  };
  begin_rows<T, T::kRows>(in.query, head, tile.begin, tile.end, shared.stays(kQuery));
  begin_rows<T, T::kRows>(in.cotangent, head, tile.begin, tile.end, shared.stays(kCotangent));
  begin_step(tile.start, 0);
  float log_sums[2] = {INFINITY, INFINITY}, deltas[2] = {};
  TADAPT_UNROLL
  for (int half = 0; half < 2; ++half) {
    const std::int32_t row = begin + 8 * half + place.row();
    if (row >= tile.end) continue;
    log_sums[half] = in.log_sums[static_cast<std::int64_t>(row) * sizes.heads + head] * std::numbers::log2e_v<float>;
    deltas[half] = in.deltas[static_cast<std::int64_t>(row) * sizes.heads + head];
  }

  const float exponent = in.scale * std::numbers::log2e_v<float>;
  typename T::Gradient sums = {};
  int stage = 0;
  for (std::int32_t first = tile.start; first < tile.end; first += T::kKeys, stage = 1 - stage) {
    finish_copies();
    __syncthreads();
    if (first + T::kKeys < tile.end) begin_step(first + T::kKeys, 1 - stage);
    if (first >= begin + T::kWarpRows || begin >= tile.end) continue;  // no key that a row of this warp sees
    typename T::Scores scores, products;
    typename T::Weights pairs;
    multiply_keys<T>(place, shared.stays(kQuery), shared.passes(kKey, stage), scores);
    multiply_keys<T>(place, shared.stays(kCotangent), shared.passes(kValue, stage), products);
    const auto slope = [&](int n, int i, float product) {
      const float weight = power_of_two(scores[0][n].values[i] * exponent - log_sums[i / 2]);
      const bool seen = first + 8 * n + place.column() + i % 2 <= begin + place.row() + i / 2 * 8;
      return seen ? AttentionSlope{weight, deltas[i / 2], in.scale}(product) : 0.0f;
    };
    take_pairs<T>(products, slope, pairs);
    multiply_values<T>(place, pairs, shared.passes(kKey, stage), part * T::kOwned / 8, sums);
  }
  store_gradient<T>(place, sums, {begin, tile.end, sizes.heads, head, sizes.size, part * T::kOwned}, in.query_gradient);
}

}  // namespace tadapt::cuda

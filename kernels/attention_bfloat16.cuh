// Causal attention on tensor cores, in the manner of FlashAttention-2. Included by attention's device code only.
#pragma once

#include <numbers>

#include "kernels/attention_tiles.cuh"
#include "kernels/core/elementwise.cuh"
#include "kernels/core/fragments.cuh"

namespace tadapt::cuda {

/// What a block works on: kRowTiles · 16 query rows a warp against kKeys keys at a time; a head of up to kHeadSize
/// numbers, zeros behind its own.
template <int kHeadSizeOf, int kRowTilesOf, int kKeysOf>
struct Tiling {
  static constexpr int kHeadSize = kHeadSizeOf, kRowTiles = kRowTilesOf, kKeys = kKeysOf;
  static constexpr int kThreads = 128;
  static constexpr int kWarpRows = 16 * kRowTiles, kRows = kThreads / kWarp * kWarpRows;
  static constexpr int kChunks = kHeadSize / 8;  ///< of 16 bytes, in a row
  static constexpr int kStride = kHeadSize + 8;  ///< between rows in shared memory
  static constexpr std::size_t kSharedBytes = sizeof(bfloat16) * (kRows + 2 * kKeys) * kStride;
  using Scores = SumFragment[kRowTiles][kKeys / 8];
  using Weights = LeftFragment[kRowTiles][kKeys / 16];
  using Results = SumFragment[kRowTiles][kHeadSize / 8];
};

/// A head's size, rounded up to whole chunks of 16 bytes.
inline int padded_size(int size) { return (size + 7) / 8 * 8; }

/// [T, heads, padded], zeros behind a head's own numbers.
struct Bfloat16Rows {
  const bfloat16* numbers;
  int heads, padded;
};

struct Bfloat16Attention {
  const float* query;
  Bfloat16Rows key, value;
  float* out;
  float* log_sums;  ///< or none
  AttentionSizes sizes;
  bool packs;      ///< whether four numbers of `query` may be read at once
  float exponent;  ///< log₂ e / √h
};

/// Eight numbers of a row in bf16, from `first` on; zeros from `size` on.
using Chunk = Pack<Bfloat16Pair, 4>;
template <int kWidth>
__device__ Chunk rounded_chunk(const float* row, int size, int first) {
  float numbers[8] = {};
  TADAPT_UNROLL
  for (int j = 0; j < 8; j += kWidth) {
    if (first + j >= size) continue;
    const Pack<float, kWidth> pack = load_pack<kWidth>(row, first + j);
    TADAPT_UNROLL
    for (int k = 0; k < kWidth; ++k) numbers[j + k] = pack.values[k];
  }
  Chunk chunk;
  TADAPT_UNROLL
  for (int j = 0; j < 4; ++j) chunk.values[j] = pair_of(numbers[2 * j], numbers[2 * j + 1]);
  return chunk;
}

/// Rows of `size` floats become rows of `padded` bf16: reads 4 and writes 2 bytes a number. 27 registers: SMs are full.
struct RoundRows {
  const float* from;
  Bfloat16Pair* to;
  int size, padded;
  bool packs;  ///< whether four numbers may be read at once
  template <int>
  __device__ void run(std::int64_t i) const {
    const int chunks = padded / 8, first = static_cast<int>(i % chunks) * 8;
    const float* row = from + i / chunks * size;
    store_pack(to, 4 * i, packs ? rounded_chunk<4>(row, size, first) : rounded_chunk<1>(row, size, first));
  }
};

/// The tensor in bf16 at `to`.
inline Bfloat16Rows round_rows(Context& context, const Tensor& from, bfloat16* to) {
  const int size = static_cast<int>(from.size(2)), padded = padded_size(size);
  const auto* numbers_of = numbers<const float>(from);
  elementwise<1>(context, "causal_attention", from.size(0) * from.size(1) * padded / 8, true,
                 RoundRows{numbers_of, reinterpret_cast<Bfloat16Pair*>(to), size, padded,
                           size % 4 == 0 && aligned_to_16(numbers_of)});
  return {to, static_cast<int>(from.size(1)), padded};
}

/// Rows of a head in shared memory, kStride apart: chunks of one column in eight rows that follow each other, which
/// tensor cores load at once, lie in different banks.
template <class T>
struct SharedRows {
  bfloat16* numbers;
  __device__ bfloat16* at(int row, int chunk) const { return numbers + row * T::kStride + chunk * 8; }
};

template <class T>
__device__ void load_queries(const Bfloat16Attention& in, const QueryTile& tile, int head, SharedRows<T> to) {
  for (int i = static_cast<int>(threadIdx.x); i < T::kRows * T::kChunks; i += T::kThreads) {
    const int row = i / T::kChunks, chunk = i % T::kChunks;
    const int size = tile.begin + row < tile.end ? in.sizes.size : 0;
    const float* from = in.query + (static_cast<std::int64_t>(tile.begin + row) * in.sizes.heads + head) * size;
    const Chunk rounded = in.packs ? rounded_chunk<4>(from, size, chunk * 8) : rounded_chunk<1>(from, size, chunk * 8);
    store_pack(reinterpret_cast<Bfloat16Pair*>(to.at(row, chunk)), 0, rounded);
  }
}

/// kCount rows of one head from row `first` on, zeros from row `end` on.
template <class T, int kCount = T::kKeys>
__device__ void begin_rows(const Bfloat16Rows& from, int head, std::int32_t first, std::int32_t end, SharedRows<T> to) {
  constexpr int kStep = T::kThreads / T::kChunks;  // rows that the block takes at once
  const int row = static_cast<int>(threadIdx.x) / T::kChunks, chunk = static_cast<int>(threadIdx.x) % T::kChunks;
  const std::int64_t stride = static_cast<std::int64_t>(from.heads) * from.padded;
  const std::int32_t rows = chunk * 8 < from.padded ? end - first - row : 0;
  const bfloat16* next = from.numbers + head * from.padded + (first + row) * stride + chunk * 8;
  bfloat16* place = to.at(row, chunk);
  TADAPT_UNROLL
  for (int j = 0; j < kCount; j += kStep) {
    begin_copy(place + j * T::kStride, next, j < rows ? 16 : 0);
    next += kStep * stride;
  }
}

/// What a lane needs to know of its place: its warp's first row and its own within each half of a fragment.
struct Place {
  int lane = static_cast<int>(threadIdx.x) % kWarp;
  int warp = static_cast<int>(threadIdx.x) / kWarp;
  __device__ int row() const { return lane / 4; }
  __device__ int column() const { return lane % 4 * 2; }
};

/// scores = queries · keysᵀ
template <class T>
__device__ void multiply_keys(const Place& place, SharedRows<T> queries, SharedRows<T> keys,
                              typename T::Scores& scores) {
  const int lane = place.lane;
  TADAPT_UNROLL
  for (int m = 0; m < T::kRowTiles; ++m) {
    TADAPT_UNROLL
    for (int n = 0; n < T::kKeys / 8; ++n) scores[m][n] = SumFragment();
  }
  TADAPT_UNROLL
  for (int k = 0; k < T::kHeadSize / 16; ++k) {
    LeftFragment left[T::kRowTiles];
    TADAPT_UNROLL
    for (int m = 0; m < T::kRowTiles; ++m)
      left[m] = load_matrices(queries.at(place.warp * T::kWarpRows + 16 * m + lane % 16, 2 * k + lane / 16));
    TADAPT_UNROLL
    for (int n = 0; n < T::kKeys / 16; ++n) {
      const FourMatrices right = load_matrices(keys.at(16 * n + lane / 16 * 8 + lane % 8, 2 * k + lane / 8 % 2));
      TADAPT_UNROLL
      for (int m = 0; m < T::kRowTiles; ++m) {
        multiply_add(left[m], {{right.pairs[0], right.pairs[1]}}, scores[m][2 * n]);
        multiply_add(left[m], {{right.pairs[2], right.pairs[3]}}, scores[m][2 * n + 1]);
      }
    }
  }
}

/// results += weights · values, of which 8 · kColumns numbers a row from chunk `first` on
template <class T, int kColumns>
__device__ void multiply_values(const Place& place, const typename T::Weights& weights, SharedRows<T> values, int first,
                                SumFragment (&results)[T::kRowTiles][kColumns]) {
  TADAPT_UNROLL
  for (int k = 0; k < T::kKeys / 16; ++k) {
    TADAPT_UNROLL
    for (int n = 0; n < kColumns / 2; ++n) {
      const FourMatrices right = load_transposed(values.at(16 * k + place.lane % 16, first + 2 * n + place.lane / 16));
      TADAPT_UNROLL
      for (int m = 0; m < T::kRowTiles; ++m) {
        multiply_add(weights[m][k], {{right.pairs[0], right.pairs[1]}}, results[m][2 * n]);
        multiply_add(weights[m][k], {{right.pairs[2], right.pairs[3]}}, results[m][2 * n + 1]);
      }
    }
  }
}

/// The softmax of a thread's rows so far, relative to 2^(exponent · largest); `total` over the thread's own columns.
template <class T>
struct Softmax {
  float largest[T::kRowTiles][2], total[T::kRowTiles][2];
};

/// Scores of keys after their row become −∞: the row of scores[0] is `row`, relative to the tile's first key.
template <class T>
__device__ void hide_future(const Place& place, int row, typename T::Scores& scores) {
  TADAPT_UNROLL
  for (int m = 0; m < T::kRowTiles; ++m) {
    TADAPT_UNROLL
    for (int n = 0; n < T::kKeys / 8; ++n) {
      TADAPT_UNROLL
      for (int i = 0; i < 4; ++i)
        if (8 * n + place.column() + i % 2 > row + 16 * m + i / 2 * 8) scores[m][n].values[i] = -INFINITY;
    }
  }
}

/// The weights of the scores; what the rows have so far is scaled to match. Every row sees a key of the first tile, so
/// `largest` is finite from then on.
template <class T>
__device__ void take_weights(float exponent, const typename T::Scores& scores, Softmax<T>& softmax,
                             typename T::Weights& weights, typename T::Results& results) {
  TADAPT_UNROLL
  for (int m = 0; m < T::kRowTiles; ++m) {
    TADAPT_UNROLL
    for (int half = 0; half < 2; ++half) {
      float largest = softmax.largest[m][half];
      TADAPT_UNROLL
      for (int n = 0; n < T::kKeys / 8; ++n)
        largest = fmaxf(largest, fmaxf(scores[m][n].values[2 * half], scores[m][n].values[2 * half + 1]));
      largest = fmaxf(largest, __shfl_xor_sync(kAllLanes, largest, 1));
      largest = fmaxf(largest, __shfl_xor_sync(kAllLanes, largest, 2));
      const float rescale = power_of_two((softmax.largest[m][half] - largest) * exponent);
      softmax.largest[m][half] = largest;
      float total = softmax.total[m][half] * rescale;
      TADAPT_UNROLL
      for (int n = 0; n < T::kKeys / 8; ++n) {
        const float lower = power_of_two((scores[m][n].values[2 * half] - largest) * exponent);
        const float upper = power_of_two((scores[m][n].values[2 * half + 1] - largest) * exponent);
        weights[m][n / 2].pairs[n % 2 * 2 + half] = pair_of(lower, upper);
        total += lower + upper;
      }
      softmax.total[m][half] = total;
      TADAPT_UNROLL
      for (int n = 0; n < T::kHeadSize / 8; ++n) {
        results[m][n].values[2 * half] *= rescale;
        results[m][n].values[2 * half + 1] *= rescale;
      }
    }
  }
}

/// out = results / Σ weights, rows from `first` up to `end`.
template <class T>
__device__ void store_results(const Bfloat16Attention& in, const Place& place, int head, std::int32_t first,
                              std::int32_t end, const Softmax<T>& softmax, const typename T::Results& results) {
  TADAPT_UNROLL
  for (int m = 0; m < T::kRowTiles; ++m) {
    TADAPT_UNROLL
    for (int half = 0; half < 2; ++half) {
      float total = softmax.total[m][half];
      total += __shfl_xor_sync(kAllLanes, total, 1);
      total += __shfl_xor_sync(kAllLanes, total, 2);
      const std::int32_t row = first + 16 * m + 8 * half + place.row();
      if (row >= end) continue;
      const std::int64_t at = static_cast<std::int64_t>(row) * in.sizes.heads + head;
      if (in.log_sums != nullptr && place.column() == 0)
        in.log_sums[at] = softmax.largest[m][half] * (in.exponent * std::numbers::ln2_v<float>)+logf(total);
      float* out = in.out + at * in.sizes.size;
      TADAPT_UNROLL
      for (int n = 0; n < T::kHeadSize / 8; ++n) {
        TADAPT_UNROLL
        for (int i = 0; i < 2; ++i) {
          const int d = 8 * n + place.column() + i;
          if (d < in.sizes.size) out[d] = results[m][n].values[2 * half + i] / total;
        }
      }
    }
  }
}

/// Keys and values pass through shared memory tile by tile: values come while scores are made, the next keys while
/// values are summed. For its rows a block reads 4·h bytes a key that they see (from second-level cache, but for the
/// first block), reads and writes 4·h bytes a row. On sm_90 two blocks, 8 warps, an SM, bound by registers:
/// h <= 64: 216 and 36 KB of shared memory; h <= 128: 254 and 68 KB; h <= 256: 234 and 66 KB.
template <class T>
__global__ void __launch_bounds__(T::kThreads) attend_bfloat16(Bfloat16Attention in, QueryTiles tiles) {
  const QueryTile tile = tiles.tiles[blockIdx.x / static_cast<unsigned>(in.sizes.heads)];
  const int head = static_cast<int>(blockIdx.x % static_cast<unsigned>(in.sizes.heads));
  const int group = in.sizes.group_of(head);
  const SharedRows<T> queries{dynamic_shared<bfloat16>()};
  const SharedRows<T> keys{queries.numbers + T::kRows * T::kStride}, values{keys.numbers + T::kKeys * T::kStride};
  const Place place;
  const std::int32_t begin = tile.begin + place.warp * T::kWarpRows;  // this warp's first row
  begin_rows<T>(in.key, group, tile.start, tile.end, keys);
  load_queries<T>(in, tile, head, queries);

  typename T::Weights weights;
  typename T::Results results = {};
  Softmax<T> softmax = {};
  TADAPT_UNROLL
  for (int m = 0; m < T::kRowTiles; ++m) softmax.largest[m][0] = softmax.largest[m][1] = -INFINITY;
  for (std::int32_t first = tile.start; first < tile.end; first += T::kKeys) {
    // Tiles that no row of this warp sees, and warps without rows.
    const bool busy = first < begin + T::kWarpRows && begin < tile.end;
    finish_copies();
    __syncthreads();
    begin_rows<T>(in.value, group, first, tile.end, values);
    if (busy) {
      typename T::Scores scores;
      multiply_keys<T>(place, queries, keys, scores);
      if (first + T::kKeys > begin + 1) hide_future<T>(place, begin + place.row() - first, scores);
      take_weights<T>(in.exponent, scores, softmax, weights, results);
    }
    finish_copies();
    __syncthreads();
    if (first + T::kKeys < tile.end) begin_rows<T>(in.key, group, first + T::kKeys, tile.end, keys);
    if (busy) multiply_values<T>(place, weights, values, 0, results);
  }
  store_results<T>(in, place, head, begin, tile.end, softmax, results);
}

}  // namespace tadapt::cuda

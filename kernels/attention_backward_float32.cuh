// Gradients of attention in fp32. Included by attention_backward_cuda.cu only.
#pragma once

#include "kernels/attention_backward.h"
#include "kernels/attention_float32.cuh"
#include "kernels/core/exponential.h"

namespace tadapt::cuda {

/// Neighbours in one warp that sum one row; more than attention has, since two gradients of a row are in registers.
inline constexpr int kThreadsPerGradient = 8;
inline constexpr int kGradientThreads = kRows * kThreadsPerGradient;
inline constexpr int kColumnsPerThread = kRows / kThreadsPerGradient;
/// As many are to share an SM: left to itself, the compiler spills registers to make room for more.
template <int kHeadSize>
inline constexpr int kBlocksPerMultiprocessor = kMostHeadSize / kHeadSize;

struct Float32Backward {
  const float *query, *key, *value, *cotangent, *log_sums, *deltas;
  float *query_gradient, *key_gradient, *value_gradient;  ///< the former two or none
  AttentionSizes sizes;
  float scale;  ///< 1 / √h
  __device__ std::int64_t query_stride() const { return static_cast<std::int64_t>(sizes.heads) * sizes.size; }
  __device__ std::int64_t key_stride() const { return static_cast<std::int64_t>(sizes.groups) * sizes.size; }
};

/// A block's tiles in shared memory: rows that stay and rows that pass by, of two kinds each, and for each pair of them
/// two numbers.
struct SharedTiles {
  __device__ explicit SharedTiles(int size) : stride(size + 1) {}  // one more: rows start in different banks
  static std::size_t bytes(int size) {
    return sizeof(float) * static_cast<std::size_t>(4 * kRows * (size + 1) + 2 * kRows * (kRows + 1));
  }
  __device__ float* rows(int which) const { return dynamic_shared<float>() + which * kRows * stride; }
  __device__ float* row(int which, int i) const { return rows(which) + i * stride; }
  __device__ float* pairs(int which, int i) const { return rows(4) + (which * kRows + i) * (kRows + 1); }
  int stride;
};

__device__ inline float row_product(const float* a, const float* b, int size) {
  float sum = 0.0f;
  for (int d = 0; d < size; ++d) sum += a[d] * b[d];
  return sum;
}

/// The part of a gradient's row that one thread sums: every kThreadsPerGradient-th number.
template <int kHeadSize>
struct OwnedSums {
  static constexpr int kOwned = kHeadSize / kThreadsPerGradient;
  float sums[kOwned] = {};
  /// sums += Σ_j factors_j · rows_j
  __device__ void add(const float* factors, const float* rows, int stride, int part, int size) {
    for (int j = 0; j < kRows; ++j) {
      const float factor = factors[j];
      const float* row = rows + j * stride + part;
      TADAPT_UNROLL
      for (int i = 0; i < kOwned; ++i) {
        if (i * kThreadsPerGradient + part < size) sums[i] += factor * row[i * kThreadsPerGradient];
      }
    }
  }
  __device__ void store(float* to, int part, int size) const {
    TADAPT_UNROLL
    for (int i = 0; i < kOwned; ++i) {
      const int d = i * kThreadsPerGradient + part;
      if (d < size) to[d] = sums[i];
    }
  }
};

/// deltas_{t,n} = ⟨out, cotangent rounded to T⟩; a warp a row: 8·h bytes.
template <class T>
__global__ void __launch_bounds__(256)
    take_deltas(const float* out, const float* cotangent, std::int64_t rows, int size, float* deltas) {
  const std::int64_t row = static_cast<std::int64_t>(blockIdx.x) * (blockDim.x / kWarp) + threadIdx.x / kWarp;
  if (row >= rows) return;
  double sum = 0;
  for (std::int64_t i = row * size + threadIdx.x % kWarp; i < (row + 1) * size; i += kWarp)
    sum += static_cast<double>(out[i]) * static_cast<float>(T(cotangent[i]));
  sum = warp_sum(sum);
  if (threadIdx.x % kWarp == 0) deltas[row] = static_cast<float>(sum);
}

/// A block a tile of keys and a group; queries and cotangents of all its heads pass by, head by head, from the tile's
/// first position on. For its 32 keys a block reads 8·h bytes a query row that sees them, and reads and writes 8·h
/// bytes a key. On sm_90, of 256 threads: h <= 64: 64 registers, 41 KB, 4 blocks an SM; h <= 128: 98, 73 KB, 2;
/// h <= 256: 228, 137 KB, 1.
template <int kHeadSize>
__global__ void __launch_bounds__(kGradientThreads, kBlocksPerMultiprocessor<kHeadSize>)
    key_gradients_float32(Float32Backward in, KeyTiles tiles) {
  enum { kKey, kValue, kQuery, kCotangent };
  const AttentionSizes& sizes = in.sizes;
  const KeyTile tile = tiles.tiles[blockIdx.x / static_cast<unsigned>(sizes.groups)];
  const int group = static_cast<int>(blockIdx.x % static_cast<unsigned>(sizes.groups)), size = sizes.size;
  const int row = static_cast<int>(threadIdx.x) / kThreadsPerGradient,
            part = static_cast<int>(threadIdx.x) % kThreadsPerGradient;
  const SharedTiles shared(size);
  load_rows(in.key + group * size, tile.begin, tile.end, in.key_stride(), size, shared.stride, shared.rows(kKey));
  load_rows(in.value + group * size, tile.begin, tile.end, in.key_stride(), size, shared.stride, shared.rows(kValue));

  float *weights = shared.pairs(0, row), *slopes = shared.pairs(1, row);
  OwnedSums<kHeadSize> key_sums, value_sums;
  for (int head = group * sizes.heads_per_group(); head < (group + 1) * sizes.heads_per_group(); ++head) {
    for (std::int32_t first = tile.begin; first < tile.stop; first += kRows) {
      __syncthreads();
      load_rows(in.query + head * size, first, tile.stop, in.query_stride(), size, shared.stride, shared.rows(kQuery));
      load_rows(in.cotangent + head * size, first, tile.stop, in.query_stride(), size, shared.stride,
                shared.rows(kCotangent));
      __syncthreads();
      for (int j = 0; j < kColumnsPerThread; ++j) {
        const int column = j * kThreadsPerGradient + part;
        const std::int32_t t = first + column;
        float weight = 0.0f, slope = 0.0f;
        if (tile.begin + row <= t && t < tile.stop) {
          const std::int64_t at = static_cast<std::int64_t>(t) * sizes.heads + head;
          const float score = row_product(shared.row(kKey, row), shared.row(kQuery, column), size) * in.scale;
          weight = exponential(score - in.log_sums[at]);
          if (in.key_gradient != nullptr)
            slope = AttentionSlope{weight, in.deltas[at], in.scale}(
                row_product(shared.row(kValue, row), shared.row(kCotangent, column), size));
        }
        weights[column] = weight;
        slopes[column] = slope;
      }
      __syncwarp();
      value_sums.add(weights, shared.rows(kCotangent), shared.stride, part, size);
      if (in.key_gradient != nullptr) key_sums.add(slopes, shared.rows(kQuery), shared.stride, part, size);
      __syncwarp();
    }
  }
  if (tile.begin + row >= tile.end) return;
  const std::int64_t at = (tile.begin + row) * in.key_stride() + group * size;
  value_sums.store(in.value_gradient + at, part, size);
  if (in.key_gradient != nullptr) key_sums.store(in.key_gradient + at, part, size);
}

/// A block a tile of query rows and a head; keys and values pass by. For its 32 rows a block reads 8·h bytes a key that
/// they see, and reads and writes 12·h bytes a row. On sm_90: h <= 64: 64 registers; h <= 128: 104; h <= 256: 102;
/// shared memory and blocks as above.
template <int kHeadSize>
__global__ void __launch_bounds__(kGradientThreads, kBlocksPerMultiprocessor<kHeadSize>)
    query_gradients_float32(Float32Backward in, QueryTiles tiles) {
  enum { kQuery, kCotangent, kKey, kValue };
  const AttentionSizes& sizes = in.sizes;
  const QueryTile tile = tiles.tiles[blockIdx.x / static_cast<unsigned>(sizes.heads)];
  const int head = static_cast<int>(blockIdx.x % static_cast<unsigned>(sizes.heads)), group = sizes.group_of(head);
  const int row = static_cast<int>(threadIdx.x) / kThreadsPerGradient,
            part = static_cast<int>(threadIdx.x) % kThreadsPerGradient;
  const int size = sizes.size;
  const std::int32_t t = tile.begin + row;
  const SharedTiles shared(size);
  load_rows(in.query + head * size, tile.begin, tile.end, in.query_stride(), size, shared.stride, shared.rows(kQuery));
  load_rows(in.cotangent + head * size, tile.begin, tile.end, in.query_stride(), size, shared.stride,
            shared.rows(kCotangent));
  const std::int64_t at = static_cast<std::int64_t>(t) * sizes.heads + head;
  const float log_sum = t < tile.end ? in.log_sums[at] : 0.0f, delta = t < tile.end ? in.deltas[at] : 0.0f;

  float* slopes = shared.pairs(0, row);
  OwnedSums<kHeadSize> sums;
  for (std::int32_t first = tile.start; first < tile.end; first += kRows) {
    __syncthreads();
    load_rows(in.key + group * size, first, tile.end, in.key_stride(), size, shared.stride, shared.rows(kKey));
    load_rows(in.value + group * size, first, tile.end, in.key_stride(), size, shared.stride, shared.rows(kValue));
    __syncthreads();
    for (int j = 0; j < kColumnsPerThread; ++j) {
      const int column = j * kThreadsPerGradient + part;
      float slope = 0.0f;
      if (first + column <= t && t < tile.end) {
        const float score = row_product(shared.row(kQuery, row), shared.row(kKey, column), size) * in.scale;
        slope = AttentionSlope{exponential(score - log_sum), delta,
                               in.scale}(row_product(shared.row(kCotangent, row), shared.row(kValue, column), size));
      }
      slopes[column] = slope;
    }
    __syncwarp();
    sums.add(slopes, shared.rows(kKey), shared.stride, part, size);
    __syncwarp();
  }
  if (t < tile.end) sums.store(in.query_gradient + at * size, part, size);
}

}  // namespace tadapt::cuda

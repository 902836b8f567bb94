// Sums of rows that pairs of a sparse matrix pick and weigh, spread evenly over blocks. Included by sparse_cuda.cu
// only.
#pragma once

#include "kernels/core/elementwise.cuh"
#include "kernels/sparse.h"

namespace tadapt::cuda {

/// Threads that share one row of width D: with 16-byte packs of bf16, 3.5 packs each at D = 3584.
inline constexpr int kRowThreads = 128;
/// Most numbers of a row that one block takes.
inline constexpr std::int64_t kSlice = 1024;

template <class To>
__device__ float rounded(float value) {
  return static_cast<float>(static_cast<To>(value));
}

/// Σ_k factor(k) · rows[index(k)] over the pairs [offsets[r], offsets[r + 1]) of result row r < count, on top of
/// `start`. A row's pairs after the first `stretch` are summed apart, `stretch` at a time, into `parts`, and joined in
/// order.
template <class T>
struct RowSum {
  const std::int32_t* offsets;
  const std::int32_t* index;    ///< of the row that a pair multiplies
  const std::int32_t* through;  ///< where the pair's factor stands, or null: in its own place
  const float* factors;
  const T* rows;
  const float* start;  ///< of the first row, or null: zero
  std::int64_t width, count;
  float* out;
  std::int64_t start_stride = 0;  ///< between starts of rows; `start` may be `out`
  std::int64_t stretch = kMostPairs;
  std::int64_t slots = 0;  ///< of `parts` [slots, width]: all pairs / stretch
  float* parts = nullptr;
  std::int64_t slices = 1;
};

/// What one block sums: the pairs [first, last), into out[0, width).
struct Stretch {
  std::int64_t first, last;
  const float* start;
  float* out;
};

/// Stretch number k >= 1 of a row that begins with pair p has slot p / stretch + k − 1. The row then holds pair
/// (slot + 1) · stretch − 1, so no two rows have a slot in common, and a slot finds its row by bisection; slots of rows
/// that are shorter stay empty.
struct Part {
  std::int64_t row, number, first, last;
};
template <class T>
__device__ Part part_of_slot(const RowSum<T>& sum, std::int64_t slot) {
  std::int64_t row = 0, above = sum.count;
  while (above - row > 1) {
    const std::int64_t middle = (row + above) / 2;
    (sum.offsets[middle] < (slot + 1) * sum.stretch ? row : above) = middle;
  }
  const std::int64_t number = slot - sum.offsets[row] / sum.stretch + 1;
  const std::int64_t first = sum.offsets[row] + number * sum.stretch;
  return {row, number, first, min(first + sum.stretch, static_cast<std::int64_t>(sum.offsets[row + 1]))};
}
/// Of all slots and, after them, all rows.
template <class T>
__device__ Stretch stretch_of(const RowSum<T>& sum, std::int64_t item) {
  if (item < sum.slots) {
    const Part part = part_of_slot(sum, item);
    return {part.first, part.last, nullptr, sum.parts + item * sum.width};
  }
  const std::int64_t row = item - sum.slots, first = sum.offsets[row];
  return {first, min(first + sum.stretch, static_cast<std::int64_t>(sum.offsets[row + 1])),
          sum.start == nullptr ? nullptr : sum.start + row * sum.start_stride, sum.out + row * sum.width};
}

/// In packs of 16 bytes where there are as many.
template <int kWidth>
__device__ void store_numbers(const float (&numbers)[kWidth], float* to) {
  constexpr int kPack = kWidth % 4 == 0 ? 4 : 1;
  TADAPT_UNROLL
  for (int i = 0; i < kWidth; i += kPack) {
    Pack<float, kPack> pack;
    for (int k = 0; k < kPack; ++k) pack.values[k] = numbers[i + k];
    store_pack(to, i, pack);
  }
}

/// A block a slice of a stretch; pairs in order, their places and factors by way of shared memory. Per pair one row of
/// T is read, in packs of kWidth, kBatch rows at once, and 12 bytes; threads beyond the width read its end again and
/// write nothing. Up to 48 registers on sm_90 (64 where kWidth is 1): 10 (8) blocks of 128 threads an SM.
template <class T, class Rounding, int kWidth>
__global__ void __launch_bounds__(kRowThreads) sum_rows(RowSum<T> sum) {
  __shared__ std::int32_t rows[kRowThreads];
  __shared__ float factors[kRowThreads];
  constexpr int kPacks = static_cast<int>(kSlice) / (kRowThreads * kWidth), kBatch = 4;
  const int thread = static_cast<int>(threadIdx.x);
  const std::int64_t item = blockIdx.x / sum.slices;
  const Stretch stretch = stretch_of(sum, item);
  if (item < sum.slots && stretch.first >= stretch.last) return;
  const std::int64_t begin = blockIdx.x % sum.slices * kSlice + thread * kWidth;
  std::int64_t place[kPacks];
  float total[kPacks][kWidth] = {};
  TADAPT_UNROLL
  for (int j = 0; j < kPacks; ++j) {
    place[j] = min(begin + j * kRowThreads * kWidth, sum.width - kWidth);
    for (int k = 0; k < kWidth && stretch.start != nullptr; ++k) total[j][k] = stretch.start[place[j] + k];
  }
  for (std::int64_t first = stretch.first; first < stretch.last; first += kRowThreads) {
    const std::int64_t p = first + thread;
    __syncthreads();
    if (p < stretch.last) {
      rows[thread] = sum.index[p];
      factors[thread] = rounded<Rounding>(sum.factors[sum.through == nullptr ? p : sum.through[p]]);
    }
    __syncthreads();
    const int pairs = static_cast<int>(min(stretch.last - first, static_cast<std::int64_t>(kRowThreads)));
    const auto add = [&](int i, auto batch) {
      Pack<T, kWidth> packs[batch()][kPacks];
      TADAPT_UNROLL
      for (int b = 0; b < batch(); ++b) {
        TADAPT_UNROLL
        for (int j = 0; j < kPacks; ++j) packs[b][j] = load_pack<kWidth>(sum.rows + rows[i + b] * sum.width, place[j]);
      }
      TADAPT_UNROLL
      for (int b = 0; b < batch(); ++b) {
        TADAPT_UNROLL
        for (int j = 0; j < kPacks; ++j) {
          for (int k = 0; k < kWidth; ++k) total[j][k] += factors[i + b] * static_cast<float>(packs[b][j].values[k]);
        }
      }
    };
    int i = 0;
    for (; i + kBatch <= pairs; i += kBatch) add(i, std::integral_constant<int, kBatch>());
    for (; i < pairs; ++i) add(i, std::integral_constant<int, 1>());
  }
  TADAPT_UNROLL
  for (int j = 0; j < kPacks; ++j) {
    const std::int64_t d = begin + j * kRowThreads * kWidth;
    if (d < sum.width) store_numbers(total[j], stretch.out + d);
  }
}

/// out_r += parts of row r, in order; a block a slice of a slot, at work where the slot is its row's first. 4 bytes a
/// number of `parts`, 8 of `out`; 16 blocks of 128 threads an SM.
template <class T>
__global__ void __launch_bounds__(kRowThreads) join_parts(RowSum<T> sum) {
  const std::int64_t slot = blockIdx.x / sum.slices;
  const Part part = part_of_slot(sum, slot);
  if (part.number != 1 || part.first >= part.last) return;
  const std::int64_t parts = (sum.offsets[part.row + 1] - part.first + sum.stretch - 1) / sum.stretch;
  const std::int64_t begin = blockIdx.x % sum.slices * kSlice, end = min(sum.width, begin + kSlice);
  for (std::int64_t d = begin + threadIdx.x; d < end; d += kRowThreads) {
    float total = sum.out[part.row * sum.width + d];
    for (std::int64_t k = 0; k < parts; ++k) total += sum.parts[(slot + k) * sum.width + d];
    sum.out[part.row * sum.width + d] = total;
  }
}

template <class T, class Rounding>
void launch_row_sums(Context& context, const char* op, RowSum<T> sum) {
  constexpr int kWidth = 16 / static_cast<int>(sizeof(T));
  static_assert(kSlice % (kRowThreads * kWidth) == 0);
  sum.slices = blocks_for(sum.width, kSlice);
  const Grid grid{(sum.slots + sum.count) * sum.slices, kRowThreads};
  if (sum.width % kWidth == 0 && aligned_to_16(sum.rows, sum.out, sum.parts))
    launch(context, op, grid, sum_rows<T, Rounding, kWidth>, sum);
  else
    launch(context, op, grid, sum_rows<T, Rounding, 1>, sum);
  launch(context, op, {sum.slots * sum.slices, kRowThreads}, join_parts<T>, sum);
}

}  // namespace tadapt::cuda

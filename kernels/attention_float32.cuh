// What attention's fp32 kernels share: tiles of 32 rows against 32 rows. Included by attention's device code only.
#pragma once

#include "kernels/attention_tiles.cuh"

namespace tadapt::cuda {

/// Rows of a block, and rows that pass by together, counted from the sequence's first token.
inline constexpr int kRows = 32;
inline constexpr int kThreadsPerRow = 4;  ///< neighbours in one warp
inline constexpr int kThreads = kRows * kThreadsPerRow;

/// Rows [begin, end) of one head into shared memory, `stride` apart, rows from `end` on zero.
__device__ inline void load_rows(const float* from, std::int64_t begin, std::int64_t end, std::int64_t row_stride,
                                 int size, int stride, float* to) {
  for (int i = static_cast<int>(threadIdx.x); i < kRows * size; i += static_cast<int>(blockDim.x)) {
    const int row = i / size, d = i % size;
    to[row * stride + d] = begin + row < end ? from[(begin + row) * row_stride + d] : 0.0f;
  }
}

}  // namespace tadapt::cuda

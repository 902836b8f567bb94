// Tensor cores: products of small bf16 matrices that lie spread over a warp, and how they come into its registers.
// Lane and register hold what PTX documents for mma.m16n8k16. Included by *_cuda.cu only; sm_80 and later.
#pragma once

#include "kernels/core/bfloat16.h"
#include "kernels/core/cuda.cuh"

#if !defined(__CUDACC__)
#include <tensor_cores.h>
#endif

namespace tadapt::cuda {

/// Two bf16 in one register, the one of the lower column (or row) in the lower half.
using Bfloat16Pair = std::uint32_t;

/// Four [8, 8] bf16: pair i of lane l is matrix i's row l / 4, columns 2·(l % 4) and the next.
struct FourMatrices {
  Bfloat16Pair pairs[4];
};
/// [16, 16] bf16 in quarters: upper left, lower left, upper right, lower right.
using LeftFragment = FourMatrices;
/// [16, 8] bf16 in halves: pair i of lane l is column l / 4, rows 8·i + 2·(l % 4) and the next.
struct RightFragment {
  Bfloat16Pair pairs[2];
};
/// [16, 8] fp32 in halves: number i of lane l is row l / 4 + 8·(i / 2), column 2·(l % 4) + i % 2.
struct SumFragment {
  float values[4] = {};
};

/// sum += left · right, accumulated in fp32. All lanes of the warp must come, here and in the two loads below.
__device__ inline void multiply_add(const LeftFragment& left, const RightFragment& right, SumFragment& sum) {
#if defined(__CUDACC__)
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(sum.values[0]), "+f"(sum.values[1]), "+f"(sum.values[2]), "+f"(sum.values[3])
      : "r"(left.pairs[0]), "r"(left.pairs[1]), "r"(left.pairs[2]), "r"(left.pairs[3]), "r"(right.pairs[0]),
        "r"(right.pairs[1]));
#else
  device_on_host::multiply_add(left.pairs, right.pairs, sum.values);
#endif
}

/// Four matrices from shared memory: `row` of lane l is row l % 8 of matrix l / 8, 8 numbers aligned to 16 bytes.
__device__ inline FourMatrices load_matrices(const bfloat16* row) {
  FourMatrices matrices;
  Bfloat16Pair* pairs = matrices.pairs;
#if defined(__CUDACC__)
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(pairs[0]), "=r"(pairs[1]), "=r"(pairs[2]), "=r"(pairs[3])
               : "r"(static_cast<std::uint32_t>(__cvta_generic_to_shared(row)))
               : "memory");
#else
  device_on_host::load_matrices(row, pairs);
#endif
  return matrices;
}
/// The same, each matrix transposed.
__device__ inline FourMatrices load_transposed(const bfloat16* row) {
  FourMatrices matrices;
  Bfloat16Pair* pairs = matrices.pairs;
#if defined(__CUDACC__)
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(pairs[0]), "=r"(pairs[1]), "=r"(pairs[2]), "=r"(pairs[3])
               : "r"(static_cast<std::uint32_t>(__cvta_generic_to_shared(row)))
               : "memory");
#else
  device_on_host::load_transposed(row, pairs);
#endif
  return matrices;
}

/// Both numbers rounded to nearest even.
__device__ inline Bfloat16Pair pair_of(float lower, float upper) {
#if defined(__CUDACC__)
  Bfloat16Pair pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(upper), "f"(lower));
  return pair;
#else
  return bfloat16(lower).bits | static_cast<Bfloat16Pair>(bfloat16(upper).bits) << 16;
#endif
}

/// Begins to copy the first `bytes` of 16 bytes from device to shared memory, zeros after them; both addresses are
/// multiples of 16. With 0 bytes nothing is read.
__device__ inline void begin_copy(void* to, const void* from, int bytes) {
#if defined(__CUDACC__)
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
               :
               : "r"(static_cast<std::uint32_t>(__cvta_generic_to_shared(to))), "l"(__cvta_generic_to_global(from)),
                 "r"(bytes)
               : "memory");
#else
  device_on_host::begin_copy(to, from, bytes);
#endif
}
/// Waits until what this thread has begun to copy is there; other threads see it after a barrier.
__device__ inline void finish_copies() {
#if defined(__CUDACC__)
  asm volatile("cp.async.wait_all;" ::: "memory");
#else
  device_on_host::finish_copies();
#endif
}

/// 2ˣ to within 2 units in the last place, by one instruction; results below 2⁻¹²⁶ are 0.
__device__ inline float power_of_two(float x) {
#if defined(__CUDACC__)
  float result;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
#else
  return std::exp2(x);
#endif
}

}  // namespace tadapt::cuda

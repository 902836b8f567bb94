// What the CUDA halves of ops share: streams, checked launches, sums over a warp and a block. Included by *_cuda.cu
// only.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>

#include "kernels/core/context.h"

/// Before a loop over registers: they must not be indexed at run time.
#if defined(__CUDACC__)
#define TADAPT_UNROLL _Pragma("unroll")
#else
#define TADAPT_UNROLL
#endif

namespace tadapt::cuda {

/// Throws DeviceError naming the call and CUDA's reason unless it is success.
void check(cudaError_t status, const char* call);

/// The stream that the context's work runs on, in order.
cudaStream_t stream_of(Context& context);

inline constexpr int kWarp = 32;
inline constexpr unsigned kAllLanes = 0xffffffffu;

struct Grid {
  std::int64_t blocks;
  int threads;                   ///< per block
  std::size_t shared_bytes = 0;  ///< dynamic shared memory
};

/// Most blocks along x that a launch may have.
inline constexpr std::int64_t kMostBlocks = (std::int64_t{1} << 31) - 1;

/// Starts a kernel; the only way to. Nothing is started when there is nothing to do (no blocks). DeviceError when the
/// launch is refused, naming `op`.
template <class... Parameters, class... Arguments>
void launch(Context& context, const char* op, const Grid& grid, void (*kernel)(Parameters...),
            const Arguments&... arguments) {
  if (grid.blocks <= 0) return;
  require_shape(grid.blocks <= kMostBlocks, "{}: {} blocks, a launch has {} at most", op, grid.blocks, kMostBlocks);
  const dim3 blocks(static_cast<unsigned>(grid.blocks)), threads(static_cast<unsigned>(grid.threads));
#if defined(__CUDACC__)
  kernel<<<blocks, threads, grid.shared_bytes, stream_of(context)>>>(static_cast<Parameters>(arguments)...);
#else
  device_on_host::launch(blocks, threads, grid.shared_bytes, stream_of(context),
                         [&] { kernel(static_cast<Parameters>(arguments)...); });
#endif
  check(cudaGetLastError(), op);
}

/// Blocks for `count` items, `each` of them to a block.
inline std::int64_t blocks_for(std::int64_t count, std::int64_t each) { return (count + each - 1) / each; }

/// kWidth numbers that are read and written by one instruction where they are 16 bytes or fewer.
template <class T, int kWidth>
struct alignas(sizeof(T) * kWidth) Pack {
  T values[kWidth];
};

/// Whether all pointers are aligned to 16 bytes, so that packs may be used.
template <class... T>
bool aligned_to_16(const T*... pointers) {
  return ((reinterpret_cast<std::uintptr_t>(pointers) % 16 == 0) && ...);
}

#if defined(__CUDACC__)
/// The block's dynamic shared memory as numbers of type T.
template <class T>
__device__ T* dynamic_shared() {
  extern __shared__ __align__(16) unsigned char tadapt_dynamic_shared[];
  return reinterpret_cast<T*>(tadapt_dynamic_shared);
}
#else
template <class T>
T* dynamic_shared() {
  return static_cast<T*>(device_on_host::dynamic_shared());
}
#endif

/// Σ over the warp's lanes, on every lane; halves are joined in a fixed order.
template <class T>
__device__ T warp_sum(T value) {
  for (int distance = kWarp / 2; distance > 0; distance /= 2) value += __shfl_xor_sync(kAllLanes, value, distance);
  return value;
}

/// Σ over the block's threads, on every thread; `room` holds one number a warp and is free again on return. All threads
/// of the block must come; the block has whole warps.
template <class T>
__device__ T block_sum(T value, T* room) {
  const int warps = static_cast<int>(blockDim.x) / kWarp;
  value = warp_sum(value);
  if (threadIdx.x % kWarp == 0) room[threadIdx.x / kWarp] = value;
  __syncthreads();
  T total = room[0];
  for (int warp = 1; warp < warps; ++warp) total += room[warp];
  __syncthreads();
  return total;
}

}  // namespace tadapt::cuda

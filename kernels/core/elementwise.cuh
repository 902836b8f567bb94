// Kernels that treat each element alone. Included by *_cuda.cu only.
#pragma once

#include "kernels/core/cuda.cuh"

namespace tadapt::cuda {

inline constexpr int kElementThreads = 256;
/// Enough blocks to fill any GPU several times; each strides over the rest.
inline constexpr std::int64_t kElementBlocks = 4096;

template <int kWidth, class Body>
__global__ void __launch_bounds__(kElementThreads) elementwise_kernel(std::int64_t packs, std::int64_t n, Body body) {
  const std::int64_t first = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  const std::int64_t stride = static_cast<std::int64_t>(gridDim.x) * blockDim.x;
  for (std::int64_t i = first; i < packs; i += stride) body.template run<kWidth>(i * kWidth);
  // What is left over when n is no multiple of the width.
  for (std::int64_t i = packs * kWidth + first; i < n; i += stride) body.template run<1>(i);
}

/// Calls body.run<W>(i), which is to treat elements [i, i + W), so that every one of n is treated once; W is `kWidth`
/// where `aligned` (pointers and kWidth numbers allow whole packs) and 1 elsewhere.
template <int kWidth, class Body>
void elementwise(Context& context, const char* op, std::int64_t n, bool aligned, const Body& body) {
  const std::int64_t packs = aligned ? n / kWidth : 0;
  const std::int64_t items = aligned ? packs + n % kWidth : n;
  const std::int64_t blocks = std::min(kElementBlocks, blocks_for(items, kElementThreads));
  launch(context, op, {blocks, kElementThreads}, elementwise_kernel<kWidth, Body>, packs, n, body);
}

/// The W numbers at `from + i`.
template <int kWidth, class T>
__device__ Pack<T, kWidth> load_pack(const T* from, std::int64_t i) {
  return *reinterpret_cast<const Pack<T, kWidth>*>(from + i);
}
template <int kWidth, class T>
__device__ void store_pack(T* to, std::int64_t i, const Pack<T, kWidth>& pack) {
  *reinterpret_cast<Pack<T, kWidth>*>(to + i) = pack;
}

/// The pointer of a device tensor, checked by the op's front.
template <class T>
T* numbers(const Tensor& tensor) {
  return static_cast<T*>(tensor.data());
}

}  // namespace tadapt::cuda

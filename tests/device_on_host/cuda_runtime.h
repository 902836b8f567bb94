// Stand-in for CUDA's header of this name: runs kernels on the CPU, so that their logic is tested without a GPU.
//
// The threads of a block are fibers; a barrier or a warp operation hands over to the next one. Blocks, warps and lanes
// run in an order shuffled by $TADAPT_DEVICE_SEED, so that a result which depends on the order (a missing barrier, a
// race) differs from run to run. Device memory is host memory of its own, one allocation each, so that AddressSanitizer
// sees every access outside. Calls that are asynchronous on a GPU are done at once.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __shared__ static
#define __launch_bounds__(...)
#define __restrict__ __restrict

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
inline dim3 threadIdx, blockIdx, blockDim, gridDim;

using cudaStream_t = struct device_on_host_stream*;
using cudaEvent_t = struct device_on_host_event*;

namespace device_on_host {

/// Runs `body` once per thread of every block. Throws std::logic_error when threads of a block wait for different
/// things that can never happen.
void launch(dim3 blocks, dim3 threads, std::size_t shared_bytes, cudaStream_t stream,
            const std::function<void()>& body);

/// What this stream is asked for from now on is never over, as after a peer that does not come; who waits for it with
/// a call that would block gets an error.
void get_stuck(cudaStream_t stream);

/// The running block's dynamic shared memory.
void* dynamic_shared();

/// Waits until every thread of the block has come.
void block_barrier();

/// Waits until every lane of `mask` has come with its `bytes` bytes; returns the lanes' values, `bytes` apart by
/// kLaneBytes, to be read before the next warp operation.
inline constexpr std::size_t kLaneBytes = 64;
const unsigned char* exchange(unsigned mask, const void* value, std::size_t bytes);

/// This thread's lane.
int lane();

template <class T>
T of_lane(unsigned mask, const T& value, int from) {
  static_assert(sizeof(T) <= kLaneBytes);
  T other;
  std::memcpy(&other, exchange(mask, &value, sizeof value) + static_cast<std::size_t>(from) * kLaneBytes, sizeof other);
  return other;
}

}  // namespace device_on_host

inline void __syncthreads() { device_on_host::block_barrier(); }
inline void __syncwarp(unsigned mask = 0xffffffffu) {
  const char nothing = 0;
  device_on_host::exchange(mask, &nothing, 1);
}
template <class T>
T __shfl_sync(unsigned mask, T value, int from, int width = 32) {
  const int lane = device_on_host::lane();
  return device_on_host::of_lane(mask, value, lane / width * width + from % width);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int distance) {
  return device_on_host::of_lane(mask, value, device_on_host::lane() ^ distance);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned distance) {
  const int from = device_on_host::lane() - static_cast<int>(distance);
  return device_on_host::of_lane(mask, value, from < 0 ? device_on_host::lane() : from);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned distance) {
  const int from = device_on_host::lane() + static_cast<int>(distance);
  return device_on_host::of_lane(mask, value, from > 31 ? device_on_host::lane() : from);
}
unsigned __ballot_sync(unsigned mask, int predicate);
inline int __any_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) != 0; }
inline int __all_sync(unsigned mask, int predicate) { return (__ballot_sync(mask, predicate) & mask) == mask; }
inline int __popc(unsigned bits) { return __builtin_popcount(bits); }
inline int atomicAdd(int* at, int value) {
  const int before = *at;
  *at += value;
  return before;
}
template <class T>
T atomicMin(T* at, T value) {
  const T before = *at;
  *at = value < before ? value : before;
  return before;
}
inline int min(int a, int b) { return a < b ? a : b; }
inline long min(long a, long b) { return a < b ? a : b; }
inline int max(int a, int b) { return a > b ? a : b; }
inline long max(long a, long b) { return a > b ? a : b; }

// ---- the few calls of the runtime that are used

enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorMemoryAllocation = 2,
  cudaErrorInsufficientDriver = 35,
  cudaErrorNoDevice = 100,
  cudaErrorNotReady = 600
};
struct cudaDeviceProp {
  char name[256];
  int major, minor, pciDomainID, pciBusID, pciDeviceID;
};
struct cudaFuncAttributes {
  int numRegs;
};
enum cudaMemcpyKind { cudaMemcpyDefault = 4 };
inline constexpr unsigned cudaStreamNonBlocking = 1;
inline constexpr unsigned cudaEventDisableTiming = 2;

const char* cudaGetErrorString(cudaError_t status);
const char* cudaGetErrorName(cudaError_t status);
cudaError_t cudaGetLastError();
cudaError_t cudaGetDeviceCount(int* count);
cudaError_t cudaGetDevice(int* index);
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int index);
cudaError_t cudaDriverGetVersion(int* version);
cudaError_t cudaRuntimeGetVersion(int* version);
cudaError_t cudaSetDevice(int index);
template <class Kernel>
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes*, Kernel) {
  return cudaSuccess;
}
cudaError_t cudaMallocHost(void** memory, std::size_t bytes);
cudaError_t cudaFreeHost(void* memory);
cudaError_t cudaMalloc(void** memory, std::size_t bytes);
cudaError_t cudaFree(void* memory);
cudaError_t cudaMemset(void* memory, int value, std::size_t bytes);
cudaError_t cudaMemsetAsync(void* memory, int value, std::size_t bytes, cudaStream_t stream);
cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind, cudaStream_t stream);
cudaError_t cudaMemGetInfo(std::size_t* free, std::size_t* total);
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags);
cudaError_t cudaStreamDestroy(cudaStream_t stream);
cudaError_t cudaStreamSynchronize(cudaStream_t stream);
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags = 0);
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags);
cudaError_t cudaEventDestroy(cudaEvent_t event);
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream);
cudaError_t cudaEventQuery(cudaEvent_t event);
cudaError_t cudaEventSynchronize(cudaEvent_t event);
cudaError_t cudaDeviceSynchronize();
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize };
template <class Kernel>
cudaError_t cudaFuncSetAttribute(Kernel, cudaFuncAttribute, int bytes) {
  constexpr int kMostSharedBytes = 227 * 1024;
  return bytes <= kMostSharedBytes ? cudaSuccess : cudaErrorInvalidValue;
}
enum cudaDataType_t { CUDA_R_32F = 0, CUDA_R_16BF = 14 };

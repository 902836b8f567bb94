#include "kernels/core/cuda.h"
#include "kernels/core/memory.h"

namespace tadapt::cuda {
namespace {

/// A context's stream; made when first asked for, on the device that was current then.
struct Stream {
  cudaStream_t handle = nullptr;
  Stream() { check(cudaStreamCreateWithFlags(&handle, cudaStreamNonBlocking), "cudaStreamCreate"); }
  ~Stream() { cudaStreamDestroy(handle); }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
};

}  // namespace

void check(cudaError_t status, const char* call) {
  if (status != cudaSuccess)
    throw DeviceError("{}: {} ({})", call, cudaGetErrorString(status), cudaGetErrorName(status));
}

cudaStream_t stream_of(Context& context) { return context.state<Stream>().handle; }

void select_device(int index) {
  const int count = cuda::device_count();
  if (index < 0 || index >= count) throw DeviceError("GPU {} was asked for, this process sees {}", index, count);
  check(cudaSetDevice(index), "cudaSetDevice");
}

int device_count() {
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status == cudaErrorNoDevice) return 0;
  check(status, "cudaGetDeviceCount");
  return count;
}

void* allocate(std::size_t bytes) {
  void* memory = nullptr;
  const std::size_t size = bytes == 0 ? 1 : bytes;
  const cudaError_t status = cudaMalloc(&memory, size);
  if (status == cudaErrorMemoryAllocation) {
    std::size_t free = 0, total = 0;
    cudaGetLastError();
    check(cudaMemGetInfo(&free, &total), "cudaMemGetInfo");
    throw DeviceError("GPU memory: {} bytes needed, {} of {} free", size, free, total);
  }
  check(status, "cudaMalloc");
  // Streams of contexts do not wait for the default stream: done before anybody can see the memory.
  check(cudaMemset(memory, 0, size), "cudaMemset");
  check(cudaDeviceSynchronize(), "cudaMemset");
  return memory;
}

void release(void* memory) { cudaFree(memory); }

void copy(Context& context, const Tensor& from, const Tensor& to) {
  if (from.bytes() == 0) return;
  check(cudaMemcpyAsync(to.data(), from.data(), from.bytes(), cudaMemcpyDefault, stream_of(context)),
        "cudaMemcpyAsync");
}

void clear(Context& context, const Tensor& tensor) {
  if (tensor.bytes() == 0) return;
  check(cudaMemsetAsync(tensor.data(), 0, tensor.bytes(), stream_of(context)), "cudaMemsetAsync");
}

void synchronize(Context& context) { check(cudaStreamSynchronize(stream_of(context)), "cudaStreamSynchronize"); }

}  // namespace tadapt::cuda

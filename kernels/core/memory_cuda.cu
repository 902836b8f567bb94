#include <cstring>

#include "kernels/core/cuda.cuh"
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

cudaDeviceProp selected() {
  int index = 0;
  cudaDeviceProp properties{};
  check(cudaGetDevice(&index), "cudaGetDevice");
  check(cudaGetDeviceProperties(&properties, index), "cudaGetDeviceProperties");
  return properties;
}

/// What a device must be able to load.
__global__ void probe() {}
constexpr int kOldestMajor = 8;

}  // namespace

void check(cudaError_t status, const char* call) {
  if (status != cudaSuccess)
    throw DeviceError("{}: {} ({})", call, cudaGetErrorString(status), cudaGetErrorName(status));
}

cudaStream_t stream_of(Context& context) { return context.state<Stream>().handle; }

void select_device(int index) {
  const int count = cuda::device_count();
  if (index < 0 || index >= count) throw DeviceError("GPU {} was asked for, this process sees {}", index, count);
  cudaDeviceProp properties{};
  check(cudaGetDeviceProperties(&properties, index), "cudaGetDeviceProperties");
  if (properties.major < kOldestMajor)
    throw DeviceError("GPU {} ({}) has compute capability {}.{}, at least {}.0 is needed (bfloat16 tensor cores)",
                      index, properties.name, properties.major, properties.minor, kOldestMajor);
  check(cudaSetDevice(index), "cudaSetDevice");
  cudaFuncAttributes attributes{};
  if (const cudaError_t status = cudaFuncGetAttributes(&attributes, probe); status != cudaSuccess) {
    cudaGetLastError();
    throw DeviceError("GPU {} ({}, compute capability {}.{}): this build has no kernels for it: {}", index,
                      properties.name, properties.major, properties.minor, cudaGetErrorString(status));
  }
}

int device_count() {
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status == cudaErrorNoDevice) return 0;
  if (status != cudaSuccess) cudaGetLastError();
  if (status == cudaErrorInsufficientDriver) {
    int driver = 0, runtime = 0;
    cudaDriverGetVersion(&driver);
    cudaRuntimeGetVersion(&runtime);
    throw DeviceError("the NVIDIA driver is {}, this build needs one for CUDA {}.{}",
                      driver == 0 ? "missing" : fmt::format("for CUDA {}.{}", driver / 1000, driver % 1000 / 10),
                      runtime / 1000, runtime % 1000 / 10);
  }
  check(status, "cudaGetDeviceCount");
  return count;
}

std::string device_kind() {
  const cudaDeviceProp properties = selected();
  return fmt::format("{}, compute capability {}.{}", properties.name, properties.major, properties.minor);
}

std::string device_address() {
  const cudaDeviceProp properties = selected();
  return fmt::format("{:04x}:{:02x}:{:02x}", properties.pciDomainID, properties.pciBusID, properties.pciDeviceID);
}

DeviceMemory device_memory() {
  DeviceMemory memory;
  check(cudaMemGetInfo(&memory.free, &memory.total), "cudaMemGetInfo");
  return memory;
}

void* allocate(std::size_t bytes) {
  void* memory = nullptr;
  const std::size_t size = bytes == 0 ? 1 : bytes;
  const cudaError_t status = cudaMalloc(&memory, size);
  if (status == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    const DeviceMemory memory_left = cuda::device_memory();
    throw DeviceError("GPU memory: {} bytes needed, {} of {} free", size, memory_left.free, memory_left.total);
  }
  check(status, "cudaMalloc");
  // Streams of contexts do not wait for the default stream: done before anybody can see the memory.
  check(cudaMemset(memory, 0, size), "cudaMemset");
  check(cudaDeviceSynchronize(), "cudaMemset");
  return memory;
}

void release(void* memory) { cudaFree(memory); }

void* allocate_pinned(std::size_t bytes) {
  void* memory = nullptr;
  const std::size_t size = bytes == 0 ? 1 : bytes;
  if (const cudaError_t status = cudaMallocHost(&memory, size); status != cudaSuccess) {
    cudaGetLastError();
    throw DeviceError("pinned host memory: {} bytes not to be had: {}", size, cudaGetErrorString(status));
  }
  std::memset(memory, 0, size);
  return memory;
}

void release_pinned(void* memory) { cudaFreeHost(memory); }

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

#include <cuda_runtime.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>

/// Everything is done when it is asked for, but on a stream that a test has stopped.
struct device_on_host_stream {
  bool stuck = false;
};
struct device_on_host_event {
  bool stuck = false;
};

void device_on_host::get_stuck(cudaStream_t stream) { stream->stuck = true; }

const char* cudaGetErrorString(cudaError_t status) { return status == cudaSuccess ? "no error" : "an error"; }
const char* cudaGetErrorName(cudaError_t status) {
  return status == cudaErrorMemoryAllocation ? "cudaErrorMemoryAllocation" : "cudaSuccess";
}
cudaError_t cudaGetLastError() { return cudaSuccess; }
cudaError_t cudaGetDeviceCount(int* count) {
  const char* visible = std::getenv("CUDA_VISIBLE_DEVICES");
  *count = visible == nullptr || *visible != '\0' ? 1 : 0;
  return *count == 1 ? cudaSuccess : cudaErrorNoDevice;
}
cudaError_t cudaGetDevice(int* index) {
  *index = 0;
  return cudaSuccess;
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int) {
  // Every process has a device of its own, unless all are to share one.
  const int domain = std::getenv("TADAPT_DEVICE_SHARED") == nullptr ? static_cast<int>(getpid()) : 0;
  *properties = {
      .name = "device on host", .major = 8, .minor = 0, .pciDomainID = domain, .pciBusID = 0, .pciDeviceID = 0};
  return cudaSuccess;
}
cudaError_t cudaDriverGetVersion(int* version) {
  *version = 0;
  return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = 0;
  return cudaSuccess;
}
cudaError_t cudaMallocHost(void** memory, std::size_t bytes) { return cudaMalloc(memory, bytes); }
cudaError_t cudaFreeHost(void* memory) { return cudaFree(memory); }
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  stream->stuck = stream->stuck || event->stuck;
  return cudaSuccess;
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  *event = new device_on_host_event;
  return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete event;
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  event->stuck = stream->stuck;
  return cudaSuccess;
}
cudaError_t cudaEventQuery(cudaEvent_t event) { return event->stuck ? cudaErrorNotReady : cudaSuccess; }
cudaError_t cudaEventSynchronize(cudaEvent_t event) { return cudaEventQuery(event); }
cudaError_t cudaSetDevice(int index) { return index == 0 ? cudaSuccess : cudaErrorInvalidValue; }
cudaError_t cudaMalloc(void** memory, std::size_t bytes) {
  constexpr std::size_t kMost = std::size_t{1} << 36;
  constexpr std::size_t kAlignment = 256;
  if (bytes > kMost || posix_memalign(memory, kAlignment, bytes) != 0) return cudaErrorMemoryAllocation;
  return cudaSuccess;
}
cudaError_t cudaFree(void* memory) {
  std::free(memory);
  return cudaSuccess;
}
cudaError_t cudaMemset(void* memory, int value, std::size_t bytes) {
  std::memset(memory, value, bytes);
  return cudaSuccess;
}
cudaError_t cudaMemsetAsync(void* memory, int value, std::size_t bytes, cudaStream_t) {
  return cudaMemset(memory, value, bytes);
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind, cudaStream_t) {
  std::memcpy(to, from, bytes);
  return cudaSuccess;
}
cudaError_t cudaMemGetInfo(std::size_t* free, std::size_t* total) {
  const char* bytes = std::getenv("TADAPT_DEVICE_MEMORY");
  *free = *total = bytes == nullptr ? std::size_t{1} << 36 : std::strtoull(bytes, nullptr, 10);
  return cudaSuccess;
}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  *stream = new device_on_host_stream;
  return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  delete stream;
  return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) { return stream->stuck ? cudaErrorNotReady : cudaSuccess; }
cudaError_t cudaDeviceSynchronize() { return cudaSuccess; }

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "kernels/core/host_memory.h"
#include "kernels/core/memory.h"

namespace tadapt::cpu {
namespace {
constexpr std::size_t kAlignment = 64;
}

void select_device(int) {}
int device_count() { return 1; }
std::string device_kind() { return name(Device::kCpu); }
std::string device_address() { return name(Device::kCpu); }
DeviceMemory device_memory() { return {.free = host_memory_bytes(), .total = host_memory_bytes()}; }

void* allocate(std::size_t bytes) {
  // One alignment unit at least, so that an empty tensor still has a valid address.
  const std::size_t size = std::max(kAlignment, (bytes + kAlignment - 1) / kAlignment * kAlignment);
  void* memory = std::aligned_alloc(kAlignment, size);
  if (memory == nullptr) throw DeviceError("host memory: {} bytes not to be had", size);
  std::memset(memory, 0, size);
  return memory;
}

void release(void* memory) { std::free(memory); }
void* allocate_pinned(std::size_t bytes) { return cpu::allocate(bytes); }
void release_pinned(void* memory) { cpu::release(memory); }

void copy(Context&, const Tensor& from, const Tensor& to) {
  if (from.bytes() > 0) std::memcpy(to.data(), from.data(), from.bytes());
}

void clear(Context&, const Tensor& tensor) {
  if (tensor.bytes() > 0) std::memset(tensor.data(), 0, tensor.bytes());
}

void synchronize(Context&) {}

}  // namespace tadapt::cpu

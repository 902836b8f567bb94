#include "kernels/core/context.h"

#include <sched.h>

#include <algorithm>

#include "kernels/core/memory.h"

namespace tadapt {

Buffer::Buffer(Device device, std::size_t bytes) : Buffer(device, DType::kInt8, {static_cast<std::int64_t>(bytes)}) {}

Buffer::Buffer(Device device, DType dtype, Shape shape) : Buffer(device, Kind::kDevice, dtype, shape) {}

Buffer Buffer::pinned(Device device, DType dtype, Shape shape) { return Buffer(device, Kind::kPinned, dtype, shape); }

Buffer::Buffer(Device device, Kind kind, DType dtype, Shape shape)
    : bytes_(static_cast<std::size_t>(shape.elements()) * bytes_per_element(dtype)),
      device_(kind == Kind::kPinned ? Device::kCpu : device),
      dtype_(dtype),
      shape_(shape) {
  void* memory = kind == Kind::kPinned ? allocate_pinned(device, bytes_) : allocate(device, bytes_);
  memory_ = std::unique_ptr<void, Release>(memory, Release{device, kind});
}

void Buffer::Release::operator()(void* memory) const {
  if (kind == Kind::kPinned)
    release_pinned(device, memory);
  else
    release(device, memory);
}

Context::Context(Device device, int threads)
    : device_(device), threads_(std::max(1, threads)), scratch_(static_cast<std::size_t>(threads_)) {}

Context Context::cpu(int threads) { return Context(Device::kCpu, threads); }

Context Context::cuda(int index, int threads) {
  select_device(Device::kCuda, index);
  return Context(Device::kCuda, threads);
}

void* Context::scratch(int thread, std::size_t bytes) {
  Buffer& buffer = scratch_.at(static_cast<std::size_t>(thread));
  if (buffer.bytes() < bytes) buffer = Buffer(device_, std::max(bytes, buffer.bytes() * 2));
  return buffer.data();
}

int threads_per_rank(int ranks_sharing_the_cores) {
  cpu_set_t mask;
  CPU_ZERO(&mask);
  const int cores = sched_getaffinity(0, sizeof mask, &mask) == 0 ? CPU_COUNT(&mask) : 1;
  return std::max(1, cores / std::max(1, ranks_sharing_the_cores));
}

}  // namespace tadapt

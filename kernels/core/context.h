// Context: where ops run, and the scratch memory they may use there. Buffer: device memory with an owner.
#pragma once

#include <cstddef>
#include <map>
#include <memory>
#include <typeindex>
#include <vector>

#include "kernels/core/tensor.h"

namespace tadapt {

/// Owns aligned (64 bytes) memory of one device. Zero-filled when made. Move-only.
class Buffer {
 public:
  Buffer() = default;
  /// Throws DeviceError naming the bytes when the memory is not to be had.
  Buffer(Device device, std::size_t bytes);
  /// Memory for a tensor of this type and shape.
  Buffer(Device device, DType dtype, Shape shape);
  /// Host memory which work on `device` may copy from and to while the host goes on; on the CPU any host memory.
  static Buffer pinned(Device device, DType dtype, Shape shape);

  void* data() const { return memory_.get(); }
  std::size_t bytes() const { return bytes_; }
  Device device() const { return device_; }
  /// The whole buffer as it was shaped when made (1-d int8 when made from bytes).
  Tensor tensor() const { return Tensor(memory_.get(), dtype_, shape_, device_); }
  template <class T>
  std::span<T> span() const {
    return tensor().span<T>();
  }

 private:
  enum class Kind : std::uint8_t { kDevice, kPinned };
  struct Release {
    Device device;
    Kind kind;
    void operator()(void* memory) const;
  };
  Buffer(Device device, Kind kind, DType dtype, Shape shape);

  std::unique_ptr<void, Release> memory_{nullptr, Release{Device::kCpu, Kind::kDevice}};
  std::size_t bytes_ = 0;
  Device device_ = Device::kCpu;
  DType dtype_ = DType::kInt8;
  Shape shape_{0};  // an empty buffer has no elements; rank 0 would be one
};

/// One device as one rank uses it. Not shared between host threads that call ops; ops themselves use `threads()`.
class Context {
 public:
  /// A CPU context with this many threads inside each op (at least 1).
  static Context cpu(int threads);
  /// GPU number `index` of those this process sees, made the current one for the calling thread; all work runs on
  /// one stream. `threads` is for what the host does beside it. DeviceError when
  /// there is none, or this build has no CUDA backend.
  static Context cuda(int index, int threads = 1);

  /// Another line of work on the same device, whose work runs beside this one's.
  Context beside() const { return Context(device_, threads_); }

  Device device() const { return device_; }
  int threads() const { return threads_; }

  /// Scratch of at least `bytes` for worker `thread` of the op that runs now (0 <= thread < threads()). Its content
  /// lasts until that worker's next request. It only ever grows, so a steady loop allocates nothing.
  void* scratch(int thread, std::size_t bytes);
  template <class T>
  std::span<T> scratch_of(int thread, std::size_t count) {
    return {static_cast<T*>(scratch(thread, count * sizeof(T))), count};
  }

  /// What ops keep from call to call (prepared products, handles): one T per context, T{} at first. Not for workers.
  template <class T>
  T& state() {
    std::shared_ptr<void>& slot = states_[std::type_index(typeid(T))];
    if (!slot) slot = std::make_shared<T>();
    return *static_cast<T*>(slot.get());
  }

 private:
  Context(Device device, int threads);
  Device device_;
  int threads_;
  std::vector<Buffer> scratch_;
  std::map<std::type_index, std::shared_ptr<void>> states_;
};

/// Threads a rank should use: cores in this process's affinity mask divided by the ranks that share it, at least 1.
int threads_per_rank(int ranks_sharing_the_cores);

}  // namespace tadapt

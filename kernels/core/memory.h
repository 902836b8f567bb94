// Memory of the devices: taking, releasing and moving it.
#pragma once

#include <vector>

#include "kernels/core/backends.h"

namespace tadapt {

/// A device's memory, in bytes, whoever uses it.
struct DeviceMemory {
  std::size_t free = 0;
  std::size_t total = 0;
};

TADAPT_BACKENDS(void select_device(int index); int device_count(); std::string device_kind();
                std::string device_address(); DeviceMemory device_memory(); void* allocate(std::size_t bytes);
                void release(void* memory); void* allocate_pinned(std::size_t bytes); void release_pinned(void* memory);
                void copy(Context& context, const Tensor& from, const Tensor& to);
                void clear(Context& context, const Tensor& tensor); void synchronize(Context& context);)

/// Makes device `index` the one that this process works on. Throws DeviceError naming what was found when there is no
/// such device, its driver is missing or too old, or it is too old for this build's kernels.
void select_device(Device device, int index);
/// How many there are. DeviceError when their driver is missing or too old.
int device_count(Device device);
/// Of the one selected: its model, and what tells it from every other one of its host.
std::string device_kind(Device device);
std::string device_address(Device device);
/// Of the one selected.
DeviceMemory device_memory(Device device);

/// Zeroed memory aligned to 64 bytes at least. Throws DeviceError naming the bytes asked for and those free.
void* allocate(Device device, std::size_t bytes);
/// Gives it back.
void release(Device device, void* memory);
/// The same of host memory which the device copies from and to by itself.
void* allocate_pinned(Device device, std::size_t bytes);
void release_pinned(Device device, void* memory);

/// to = from, bit for bit, between any of the host and the context's device, in the order of the context's work.
///   from, to  of one dtype and shape, not overlapping
/// What it writes on the host is there, and what it reads there may change, after synchronize().
void copy(Context& context, const Tensor& from, const Tensor& to);

/// tensor = zero bytes.
void clear(Context& context, const Tensor& tensor);

/// Returns when everything asked of the context so far is done; throws DeviceError when any of it failed.
void synchronize(Context& context);

/// The numbers of `tensor`, wherever it lies, once everything asked of the context so far is done.
template <class T>
std::vector<T> on_host(Context& context, const Tensor& tensor) {
  std::vector<T> numbers(static_cast<std::size_t>(tensor.elements()));
  copy(context, tensor, Tensor(numbers.data(), DTypeOf<T>::value, tensor.shape()));
  synchronize(context);
  return numbers;
}

/// The same numbers on another device: the tensor itself if it lies there already, else a copy of it, made when
/// everything asked of the context so far is done.
class View {
 public:
  View(Context& context, const Tensor& tensor, Device device) : tensor_(tensor) {
    if (tensor.empty() || tensor.device() == device) return;
    copy_ = Buffer(device, tensor.dtype(), tensor.shape());
    tensor_ = copy_.tensor();
    copy(context, tensor, tensor_);
    synchronize(context);
  }
  const Tensor& tensor() const { return tensor_; }

 private:
  Buffer copy_;
  Tensor tensor_;
};
/// Where the context computes.
struct DeviceView : View {
  DeviceView(Context& context, const Tensor& tensor) : View(context, tensor, context.device()) {}
};
/// On the host.
struct HostView : View {
  HostView(Context& context, const Tensor& tensor) : View(context, tensor, Device::kCpu) {}
};

}  // namespace tadapt

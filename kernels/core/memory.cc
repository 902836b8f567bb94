#include "kernels/core/memory.h"

#include "kernels/core/check.h"
#include "kernels/core/dispatch.h"

namespace tadapt {

void select_device(Device device, int index) { TADAPT_DISPATCH_ON(device, select_device, index); }

int device_count(Device device) { TADAPT_DISPATCH_ON(device, device_count, ); }

std::string device_kind(Device device) { TADAPT_DISPATCH_ON(device, device_kind, ); }

std::string device_address(Device device) { TADAPT_DISPATCH_ON(device, device_address, ); }

DeviceMemory device_memory(Device device) { TADAPT_DISPATCH_ON(device, device_memory, ); }

void* allocate(Device device, std::size_t bytes) { TADAPT_DISPATCH_ON(device, allocate, bytes); }

void release(Device device, void* memory) { TADAPT_DISPATCH_ON(device, release, memory); }

void* allocate_pinned(Device device, std::size_t bytes) { TADAPT_DISPATCH_ON(device, allocate_pinned, bytes); }

void release_pinned(Device device, void* memory) { TADAPT_DISPATCH_ON(device, release_pinned, memory); }

void copy(Context& context, const Tensor& from, const Tensor& to) {
  require_shape(from.dtype() == to.dtype() && from.shape() == to.shape(), "copy: {} {} onto {} {}", name(from.dtype()),
                from.shape(), name(to.dtype()), to.shape());
  TADAPT_DISPATCH(context, copy, context, from, to);
}

void clear(Context& context, const Tensor& tensor) { TADAPT_DISPATCH(context, clear, context, tensor); }

void synchronize(Context& context) { TADAPT_DISPATCH(context, synchronize, context); }

}  // namespace tadapt

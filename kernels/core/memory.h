// Memory of the devices: taking, releasing and moving it.
#pragma once

#include "kernels/core/dispatch.h"

namespace tadapt {

TADAPT_BACKENDS(void select_device(int index); int device_count(); void* allocate(std::size_t bytes);
                void release(void* memory); void copy(Context& context, const Tensor& from, const Tensor& to);
                void clear(Context& context, const Tensor& tensor); void synchronize(Context& context);)

/// Makes device `index` the one that this process works on.
inline void select_device(Device device, int index) { TADAPT_DISPATCH_ON(device, select_device, index); }
/// How many there are.
inline int device_count(Device device) { TADAPT_DISPATCH_ON(device, device_count, ); }

/// Zeroed memory aligned to 64 bytes at least. Throws DeviceError naming the bytes asked for and those free.
inline void* allocate(Device device, std::size_t bytes) { TADAPT_DISPATCH_ON(device, allocate, bytes); }
/// Gives it back.
inline void release(Device device, void* memory) { TADAPT_DISPATCH_ON(device, release, memory); }

/// to = from, bit for bit, between any of the host and the context's device, in the order of the context's work.
///   from, to  of one dtype and shape, not overlapping
/// What it writes on the host is there, and what it reads there may change, after synchronize().
inline void copy(Context& context, const Tensor& from, const Tensor& to) {
  require_shape(from.dtype() == to.dtype() && from.shape() == to.shape(), "copy: {} {} onto {} {}", name(from.dtype()),
                from.shape(), name(to.dtype()), to.shape());
  TADAPT_DISPATCH(context, copy, context, from, to);
}

/// tensor = zero bytes.
inline void clear(Context& context, const Tensor& tensor) { TADAPT_DISPATCH(context, clear, context, tensor); }

/// Returns when everything asked of the context so far is done; throws DeviceError when any of it failed.
inline void synchronize(Context& context) { TADAPT_DISPATCH(context, synchronize, context); }

}  // namespace tadapt

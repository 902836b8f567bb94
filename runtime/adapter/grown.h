// Scratch that grows to the largest matrix asked of it.
#pragma once

#include "kernels/core/context.h"

namespace tadapt {

/// The first rows·columns numbers of `memory` as [rows, columns] of `dtype` on the context's device; memory too small
/// is replaced, and what it held is lost. One buffer is always asked for one dtype and device.
inline Tensor grown(const Context& context, Buffer& memory, DType dtype, std::int64_t rows, std::int64_t columns) {
  if (memory.data() == nullptr || memory.tensor().elements() < rows * columns) {
    memory = Buffer();  // released first, so that both are never held
    memory = Buffer(context.device(), dtype, {rows * columns});
  }
  return memory.tensor().rows(0, rows * columns).reshaped({rows, columns});
}

}  // namespace tadapt

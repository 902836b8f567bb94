// Conversion between float types on one host thread; ops spread it over threads as suits them.
#pragma once

#include "kernels/core/tensor.h"

namespace tadapt::cpu {

/// to = from, rounded to nearest even; float32, bfloat16 and float16 host tensors of equal size, not overlapping.
void convert_elements(const Tensor& from, const Tensor& to);

/// Each value as it reads back after a trip through bfloat16.
void round_to_bfloat16(std::span<float> values);

}  // namespace tadapt::cpu

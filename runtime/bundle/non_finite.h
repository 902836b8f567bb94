// Numbers that are not finite, in tensors of any float type.
#pragma once

#include <string>

#include "kernels/core/tensor.h"

namespace tadapt {

/// "3 of 512 numbers are not finite, the first is number 17"; empty when all are, and for tensors of other types.
std::string non_finite_numbers(const Tensor& tensor);

}  // namespace tadapt

// Joining numbers in halves: an order of operations that vectors and single numbers share.
#pragma once

#include <cstdint>

#include "kernels/core/vectorise.h"

namespace tadapt::cpu {

/// All kCount numbers joined in halves, kCount a power of two: element j with j + kCount / 2, and so on.
template <std::int64_t kCount, class Operation>
TADAPT_INLINE float join_in_halves(const float* numbers, Operation operation) {
  float partial[kCount / 2];
  for (std::int64_t j = 0; j < kCount / 2; ++j) partial[j] = operation(numbers[j], numbers[j + kCount / 2]);
  for (std::int64_t width = kCount / 4; width > 0; width /= 2) {
    for (std::int64_t j = 0; j < width; ++j) partial[j] = operation(partial[j], partial[j + width]);
  }
  return partial[0];
}

}  // namespace tadapt::cpu

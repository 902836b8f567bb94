// Rows of float32 as caches store them, and back.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "kernels/core/tensor.h"

namespace tadapt {

/// Σ x_i² in double. Element i goes to partial sum i mod 8; partial sums are joined pairwise: the order is fixed.
double square_norm(std::span<const float> row);

struct EncodedRow {
  double square_norm = 0;   ///< of the row as given
  double error_square = 0;  ///< ‖row − stored row‖²; not finite when a number of the row is not, or overflowed
  float scale = 0;          ///< int8: max|x| / 127; otherwise 0
};

/// Writes `row` to `out` (row.size() elements of `dtype`): float32 as it is; bfloat16 rounded to nearest even; int8 as
/// x / scale rounded to nearest even, so stored x = scale · int8.
EncodedRow encode_row(std::span<const float> row, DType dtype, std::byte* out);

/// Writes `row` as a cache with rows of `dtype` hands it out again: float32 and bfloat16 as they are stored, int8 as
/// float32.
EncodedRow encode_delivered_row(std::span<const float> row, DType dtype, std::byte* out);

/// out_i = scale · in_i.
void decode_int8_row(std::span<const std::int8_t> in, float scale, float* out);

}  // namespace tadapt

// What products are held against: their operands as they are rounded, in double, and the error that fp32 sums may have.
#pragma once

#include "kernels/matmul.h"
#include "tests/kernels/testing.h"

namespace tadapt::testing {

inline double rounded(double number, DType compute) {
  const auto single = static_cast<float>(number);
  return static_cast<double>(compute == DType::kBFloat16 ? round_to_bfloat16(single) : single);
}

/// A [rows, columns] tensor as the product rounds it, in double.
inline std::vector<double> operand(const Tensor& tensor, DType compute) {
  std::vector<double> numbers = doubles(tensor);
  for (double& number : numbers) number = rounded(number, compute);
  return numbers;
}

/// |error| allowed: K fp32 additions of terms whose absolute values sum to `magnitude`.
inline double allowance(std::int64_t k, double magnitude) { return (static_cast<double>(k) + 4) * 0x1p-24 * magnitude; }

}  // namespace tadapt::testing

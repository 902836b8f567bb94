// What the kernel tests share: reproducible operands, reading tensors as doubles, bitwise comparison.
#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <vector>

#include "kernels/core/random.h"
#include "tests/support/devices.h"

namespace tadapt::testing {

/// A buffer of uniform numbers in [low, high), rounded to its dtype; another `sample`, other numbers.
inline Buffer uniform(DType dtype, Shape shape, std::uint64_t sample, float low = -1.0f, float high = 1.0f) {
  Buffer buffer(Device::kCpu, dtype, shape);
  const RandomStream stream(7, RandomPurpose::kTest, 0, sample);
  for (std::int64_t i = 0; i < shape.elements(); ++i) {
    const float value = low + (high - low) * stream.uniform(static_cast<std::uint32_t>(i));
    if (dtype == DType::kFloat32) static_cast<float*>(buffer.data())[i] = value;
    if (dtype == DType::kBFloat16) static_cast<bfloat16*>(buffer.data())[i] = bfloat16(value);
    if (dtype == DType::kFloat16) static_cast<float16*>(buffer.data())[i] = float16(value);
  }
  return buffer;
}

/// Element i of a float tensor, as a double.
inline double value(const Tensor& tensor, std::int64_t i) {
  switch (tensor.dtype()) {
    case DType::kFloat32:
      return static_cast<double>(static_cast<const float*>(tensor.data())[i]);
    case DType::kBFloat16:
      return static_cast<double>(static_cast<float>(static_cast<const bfloat16*>(tensor.data())[i]));
    case DType::kFloat16:
      return static_cast<double>(static_cast<float>(static_cast<const float16*>(tensor.data())[i]));
    default:
      return tensor.span<double>()[static_cast<std::size_t>(i)];
  }
}

/// All elements of a float tensor.
inline std::vector<double> doubles(const Tensor& tensor) {
  std::vector<double> result(static_cast<std::size_t>(tensor.elements()));
  for (std::int64_t i = 0; i < tensor.elements(); ++i) result[static_cast<std::size_t>(i)] = value(tensor, i);
  return result;
}

inline Buffer copy(const Tensor& tensor) {
  Buffer buffer(Device::kCpu, tensor.dtype(), tensor.shape());
  if (tensor.bytes() > 0) std::memcpy(buffer.data(), tensor.data(), tensor.bytes());
  return buffer;
}

inline ::testing::AssertionResult same_bits(const Tensor& a, const Tensor& b) {
  if (!(a.shape() == b.shape()) || a.dtype() != b.dtype()) return ::testing::AssertionFailure() << "shape or dtype";
  const auto* x = static_cast<const unsigned char*>(a.data());
  const auto* y = static_cast<const unsigned char*>(b.data());
  const std::size_t size = bytes_per_element(a.dtype());
  std::int64_t different = 0, first = -1;
  for (std::int64_t i = 0; i < a.elements(); ++i) {
    const std::size_t at = static_cast<std::size_t>(i) * size;
    if (std::memcmp(x + at, y + at, size) == 0) continue;
    if (different++ == 0) first = i;
  }
  if (different == 0) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure() << different << " of " << a.elements() << " values differ, the first at "
                                       << first << ": " << value(a, first) << " and " << value(b, first);
}

}  // namespace tadapt::testing

// Tests of every device there may be: one that is not there is skipped by name.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <span>
#include <string>

#include "kernels/core/memory.h"

namespace tadapt::testing {

/// Whether this build has a GPU and one is there: device code on the host counts.
inline bool has_gpu() {
  try {
    return device_count(Device::kCuda) > 0;
  } catch (const DeviceError&) {
    return false;
  }
}

inline Context context_on(Device device, int threads = 1) {
  return device == Device::kCpu ? Context::cpu(threads) : Context::cuda(0);
}

/// Two passes over the same tokens, of different sizes: the same bits on the CPU. A GPU's library may choose another
/// product for another number of rows; there the errors' root mean square is within `tolerance` of the numbers' own.
inline ::testing::AssertionResult agree(Device device, std::span<const float> a, std::span<const float> b,
                                        double tolerance) {
  if (a.size() != b.size()) return ::testing::AssertionFailure() << a.size() << " and " << b.size() << " numbers";
  if (a.empty() || std::memcmp(a.data(), b.data(), a.size_bytes()) == 0) return ::testing::AssertionSuccess();
  if (device == Device::kCpu) return ::testing::AssertionFailure() << "other bits";
  double squares = 0, error_squares = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    squares += static_cast<double>(a[i]) * a[i];
    error_squares += std::pow(static_cast<double>(a[i]) - b[i], 2);
  }
  const double error = std::sqrt(error_squares / squares);
  if (error <= tolerance) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure() << "relative error " << error << " above " << tolerance;
}

/// Root mean square, relative, of the errors of a model's results. bfloat16 operands of products have relative errors
/// up to 2^-9, two a product, which add up like a random walk over the 7 chained products of every layer, on a GPU also
/// the 2 of attention, and that of the head. float32 sums of up to some thousand terms: 1e-4.
inline double pass_tolerance(Device device, DType compute, int layers) {
  const double products = (device == Device::kCpu ? 7.0 : 9.0) * layers + 1.0;
  return compute == DType::kFloat32 ? 1e-4 : std::sqrt(2.0 * products) * 0x1p-9;
}

/// Cases with Device as their parameter: INSTANTIATE_TEST_SUITE_P(Device, X, kEachDevice, device_name).
class PerDevice : public ::testing::TestWithParam<Device> {
 protected:
  void SetUp() override {
    if (GetParam() == Device::kCuda && !has_gpu()) GTEST_SKIP() << "no GPU here";
  }
};
inline const auto kEachDevice = ::testing::Values(Device::kCpu, Device::kCuda);
inline std::string device_name(const ::testing::TestParamInfo<Device>& info) { return name(info.param); }

}  // namespace tadapt::testing

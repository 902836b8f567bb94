// exp for floats as plain arithmetic, so that compilers vectorise it and every instruction set gives the same bits.
#pragma once

#include <bit>

#include "kernels/core/bfloat16.h"

namespace tadapt {

/// eˣ to within 2 units in the last place; 0 below −87.33 (the smallest normal number), infinity above 88.72, NaN
/// stays. Range reduction by Cody & Waite, polynomial of Cephes' expf.
TADAPT_HOST_DEVICE inline float exponential(float x) {
  constexpr float kShift = 0x1.8p23f;  // adding it rounds to an integer, held in the low mantissa bits
  const float clamped = x < -104.0f ? -104.0f : (x > 89.0f ? 89.0f : x);
  const float shifted = clamped * 1.44269504f + kShift;
  const float n = shifted - kShift;
  const float r = (clamped - n * 0.693359375f) - n * -2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  const float value = p * (r * r) + r + 1.0f;
  // 2ⁿ as two factors: n reaches 128 and one factor's exponent does not.
  const std::int32_t exponent = static_cast<std::int32_t>(std::bit_cast<std::uint32_t>(shifted) & 0x1ffu);
  const std::int32_t power = exponent >= 256 ? exponent - 512 : exponent;
  const std::int32_t half = power >> 1;
  const float factor0 = std::bit_cast<float>(static_cast<std::uint32_t>(half + 127) << 23);
  const float factor1 = std::bit_cast<float>(static_cast<std::uint32_t>(power - half + 127) << 23);
  const float result = value * factor0 * factor1;
  return x < -87.33f ? 0.0f : (x > 88.72283f ? std::bit_cast<float>(0x7f800000u) : result);
}

}  // namespace tadapt

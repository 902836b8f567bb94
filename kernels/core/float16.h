// float16: IEEE half precision, as weights in the wild are stored. For storage only: no arithmetic.
#pragma once

#include <bit>
#include <cstdint>

#include "kernels/core/bfloat16.h"

namespace tadapt {

struct float16 {
  std::uint16_t bits = 0;

  float16() = default;
  /// Rounds to nearest even; beyond 65504 by half a unit or more gives infinity; NaN stays NaN (quiet).
  TADAPT_HOST_DEVICE explicit float16(float value) {
    const std::uint32_t u = std::bit_cast<std::uint32_t>(value);
    const std::uint32_t magnitude = u & 0x7fffffffu;
    // Below 2⁻¹⁴ halves lie 2⁻²⁴ apart, as floats do in [0.5, 1): adding 0.5 rounds.
    const std::uint32_t tiny =
        std::bit_cast<std::uint32_t>(std::bit_cast<float>(magnitude < 0x38800000u ? magnitude : 0u) + 0.5f) -
        0x3f000000u;
    const std::uint32_t normal = (magnitude - 0x38000000u + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;
    const std::uint32_t finite = magnitude < 0x38800000u ? tiny : normal;
    const std::uint32_t special = magnitude > 0x7f800000u ? 0x7e00u : 0x7c00u;
    bits = static_cast<std::uint16_t>(((u >> 16) & 0x8000u) | (magnitude >= 0x477ff000u ? special : finite));
  }
  TADAPT_HOST_DEVICE explicit operator float() const {
    const std::uint32_t magnitude = bits & 0x7fffu;
    const float tiny = static_cast<float>(static_cast<std::int32_t>(magnitude)) * 0x1p-24f;
    const std::uint32_t rebias = magnitude >= 0x7c00u ? 0x70000000u : 0x38000000u;
    const std::uint32_t value = magnitude < 0x0400u ? std::bit_cast<std::uint32_t>(tiny) : (magnitude << 13) + rebias;
    return std::bit_cast<float>(value | (static_cast<std::uint32_t>(bits & 0x8000u) << 16));
  }
  friend bool operator==(float16 a, float16 b) { return a.bits == b.bits; }
};
static_assert(sizeof(float16) == 2);

}  // namespace tadapt

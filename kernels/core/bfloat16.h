// bfloat16: the upper half of an IEEE float, rounded to nearest, ties to even.
#pragma once

#include <bit>
#include <cstdint>

#if defined(__CUDACC__)
#define TADAPT_HOST_DEVICE __host__ __device__
#else
#define TADAPT_HOST_DEVICE
#endif

namespace tadapt {

struct bfloat16 {
  std::uint16_t bits = 0;

  bfloat16() = default;
  /// Rounds to nearest even; NaN stays NaN (quiet), infinities stay.
  TADAPT_HOST_DEVICE explicit bfloat16(float value) {
    const std::uint32_t u = std::bit_cast<std::uint32_t>(value);
    const bool is_nan = (u & 0x7fffffffu) > 0x7f800000u;
    bits = is_nan ? static_cast<std::uint16_t>((u >> 16) | 0x0040u)
                  : static_cast<std::uint16_t>((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
  }
  TADAPT_HOST_DEVICE explicit operator float() const {
    return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
  }
  friend bool operator==(bfloat16 a, bfloat16 b) { return a.bits == b.bits; }
};
static_assert(sizeof(bfloat16) == 2);

/// `value` as it reads back after a trip through bfloat16.
TADAPT_HOST_DEVICE inline float round_to_bfloat16(float value) { return static_cast<float>(bfloat16(value)); }

}  // namespace tadapt

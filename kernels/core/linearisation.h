// Linearisation: which derivative a backward op takes of what is not linear.
#pragma once

#include <cstdint>

namespace tadapt {

enum class Linearisation : std::uint8_t {
  kExact,  ///< the derivative
  /// RelP, for attribution: normalisers, the sigmoid inside SiLU and attention's weights are constants, and a product
  /// of two gated branches gives each of them half. Then contributions add up to the output (but for biases). Source:
  /// Jafari et al., "RelP", 2025.
  kRelp,
};

}  // namespace tadapt

// Rotary position embedding.
#pragma once

#include <cmath>
#include <vector>

#include "kernels/core/backends.h"

namespace tadapt {

/// theta^(−2j/h) for 0 <= j < h/2, in fp32; computed on the host for every device, so that angles are the same.
inline std::vector<float> rope_frequencies(double theta, std::int64_t head_size) {
  std::vector<float> result;
  for (std::int64_t j = 0; j < head_size; j += 2) {
    const float exponent = static_cast<float>(j) / static_cast<float>(head_size);
    result.push_back(1.0f / std::pow(static_cast<float>(theta), exponent));
  }
  return result;
}

/// Which way a rotation turns: backward is forward's transpose, which is also its inverse.
enum class Rotation : std::uint8_t { kForward, kBackward };

TADAPT_BACKENDS(void rope(Context& context, const Tensor& x, const Tensor& positions, double theta, Rotation rotation);)

/// Rotates the pair (x_j, x_{j+h/2}) of every head by the angle position · theta^(−2j/h), 0 <= j < h/2:
///   x_j ← x_j·cos − x_{j+h/2}·sin,   x_{j+h/2} ← x_{j+h/2}·cos + x_j·sin,   kBackward: by minus that angle
///   x          [T, H, h] float32, in place; h even. Backward: the rotated vector's cotangent becomes the gradient
///   positions  [T] int32, read only
/// Frequencies, angles, cosines and sines are fp32 (each rounded once), as Hugging Face transformers has them.
/// Source: Su et al., "RoFormer", 2021, in the rotate-half arrangement. Oracle: the formula in double.
void rope(Context& context, const Tensor& x, const Tensor& positions, double theta,
          Rotation rotation = Rotation::kForward);

}  // namespace tadapt

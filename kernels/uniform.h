// Random numbers made where they are needed.
#pragma once

#include "kernels/core/backends.h"
#include "kernels/core/random.h"

namespace tadapt {

/// (2u − 1) · bound for the stream's draw u of an index
struct UniformNumber {
  RandomStream stream;
  float bound;
  TADAPT_HOST_DEVICE float operator()(std::int64_t index) const {
    return (2.0f * stream.uniform(static_cast<std::uint32_t>(index)) - 1.0f) * bound;
  }
};

TADAPT_BACKENDS(void uniform(Context& context, const UniformNumber& number, const Tensor& numbers);)

/// numbers_i = (2 · stream.uniform(i) − 1) · bound: uniform in [−bound, bound)
///   numbers  [n] float32 or bfloat16 (rounded to nearest even), n <= 2^32, overwritten
/// The same bits on every device, for any number of threads. Oracle: the formula, draw by draw.
void uniform(Context& context, const RandomStream& stream, float bound, const Tensor& numbers);

}  // namespace tadapt

#include <cmath>
#include <vector>

#include "kernels/core/launch.h"
#include "kernels/core/vectorise.h"
#include "kernels/rope.h"

namespace tadapt::cpu {
namespace {
TADAPT_VECTORISED void rotate(float* head, const float* cosines, const float* sines, std::int64_t half) {
  for (std::int64_t j = 0; j < half; ++j) {
    const float first = head[j], second = head[j + half];
    head[j] = first * cosines[j] - second * sines[j];
    head[j + half] = second * cosines[j] + first * sines[j];
  }
}
}  // namespace

void rope(Context& context, const Tensor& x, const Tensor& positions, double theta, Rotation rotation) {
  const std::int64_t heads = x.size(1), size = x.size(2), half = size / 2;
  const std::vector<float> frequency = rope_frequencies(theta, size);
  const float direction = rotation == Rotation::kForward ? 1.0f : -1.0f;
  const std::span<const std::int32_t> at = positions.span<std::int32_t>();
  float* numbers = x.span<float>().data();
  parallel_blocks(context, x.size(0), rows_per_block(heads * size),
                  [&](std::int64_t begin, std::int64_t end, int thread) {
                    const std::span<float> table = context.scratch_of<float>(thread, static_cast<std::size_t>(size));
                    float* cosines = table.data();
                    float* sines = cosines + half;
                    for (std::int64_t t = begin; t < end; ++t) {
                      const auto position = static_cast<float>(at[static_cast<std::size_t>(t)]);
                      for (std::int64_t j = 0; j < half; ++j) {
                        const float angle = position * frequency[static_cast<std::size_t>(j)];
                        cosines[j] = std::cos(angle);
                        sines[j] = direction * std::sin(angle);
                      }
                      for (std::int64_t h = 0; h < heads; ++h)
                        rotate(numbers + (t * heads + h) * size, cosines, sines, half);
                    }
                  });
}

}  // namespace tadapt::cpu

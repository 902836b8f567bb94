#include <algorithm>

#include "kernels/attention_rows.h"
#include "kernels/core/launch.h"
#include "kernels/core/vectorise.h"
#include "kernels/position_maps.h"

namespace tadapt::cpu {
namespace {

struct Blend {
  float gate, up;
};
TADAPT_VECTORISED void blend_each(const Blend& factors, const float* gate, const float* up, const float* scale,
                                  std::int64_t n, float* out) {
#pragma omp simd
  for (std::int64_t i = 0; i < n; ++i) out[i] = (factors.gate * gate[i] + factors.up * up[i]) * scale[i];
}

}  // namespace

void blend_rows(Context& context, const GatedPair& factors, const GatedPair& rows, const Tensor& scale,
                const Tensor& out) {
  const auto numbers = [](const Tensor& tensor) { return tensor.span<float>().data(); };
  const std::int64_t width = out.size(1);
  parallel_blocks(context, out.size(0), rows_per_block(width), [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t n = begin; n < end; ++n)
      blend_each({numbers(factors.gate)[n], numbers(factors.up)[n]}, numbers(rows.gate) + n * width,
                 numbers(rows.up) + n * width, numbers(scale), width, numbers(out) + n * width);
  });
}

void map_rows(Context& context, const PositionMaps& maps, const Tensor& x, const Tensor& y) {
  const std::int64_t width = x.size(1);
  const std::int32_t *offsets = maps.offsets.span<std::int32_t>().data(), *rows = maps.rows.span<std::int32_t>().data();
  const float* from = x.span<float>().data();
  float* to = y.span<float>().data();
  parallel_for(context, maps.maps.size(0), [&](std::int64_t position, int) {
    const float* map = maps.maps.span<float>().data() + position * width * width;
    const auto sum = [&](std::int32_t at) {
      const std::int64_t row = rows[at] * width;
      std::copy_n(from + row, width, to + row);
      return Sum{from + row, to + row};
    };
    std::int32_t at = offsets[position];
    const std::int32_t end = offsets[position + 1];
    for (; at + 4 <= end; at += 4) accumulate_four({sum(at), sum(at + 1), sum(at + 2), sum(at + 3)}, map, width, width);
    for (; at < end; ++at) accumulate_one(sum(at), map, width, width);
  });
}

}  // namespace tadapt::cpu

#include <cmath>

#include "kernels/core/launch.h"
#include "kernels/core/vectorise.h"
#include "kernels/norm.h"

namespace tadapt::cpu {
namespace {
TADAPT_VECTORISED void normalise(const float* x, const float* weight, float epsilon, std::int64_t n, float* y) {
  const double squares = ordered_sum(n, [&](std::int64_t i) { return static_cast<double>(x[i]) * x[i]; });
  const auto scale = static_cast<float>(1.0 / std::sqrt(squares / static_cast<double>(n) + epsilon));
  for (std::int64_t i = 0; i < n; ++i) y[i] = weight[i] * (x[i] * scale);
}
}  // namespace

void rms_norm(Context& context, const Tensor& x, const Tensor& weight, float epsilon, const Tensor& y) {
  const std::int64_t n = x.size(1);
  const float* from = x.span<float>().data();
  const float* factors = weight.span<float>().data();
  float* to = y.span<float>().data();
  parallel_blocks(context, x.size(0), rows_per_block(n), [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t t = begin; t < end; ++t) normalise(from + t * n, factors, epsilon, n, to + t * n);
  });
}

}  // namespace tadapt::cpu

#include <cmath>

#include "kernels/core/launch.h"
#include "kernels/core/vectorise.h"
#include "kernels/norm.h"

namespace tadapt::cpu {
namespace {
TADAPT_INLINE double scale_of(const float* x, float epsilon, std::int64_t n) {
  const double squares = ordered_sum(n, [&](std::int64_t i) { return static_cast<double>(x[i]) * x[i]; });
  return 1.0 / std::sqrt(squares / static_cast<double>(n) + epsilon);
}
TADAPT_VECTORISED void normalise(const float* x, const float* weight, float epsilon, std::int64_t n, float* y) {
  const auto scale = static_cast<float>(scale_of(x, epsilon, n));
  for (std::int64_t i = 0; i < n; ++i) y[i] = weight[i] * (x[i] * scale);
}

struct Row {
  const float *x, *cotangent;
  float* gradient;
};
TADAPT_VECTORISED void add_gradient(const Row& row, const float* weight, float epsilon, Linearisation linearisation,
                                    std::int64_t n) {
  const double scale = scale_of(row.x, epsilon, n);
  double shrink = 0;
  if (linearisation == Linearisation::kExact) {
    const double along =
        ordered_sum(n, [&](std::int64_t i) { return static_cast<double>(row.x[i]) * weight[i] * row.cotangent[i]; });
    shrink = scale * scale * scale * along / static_cast<double>(n);
  }
  const RmsNormGradient formula{static_cast<float>(scale), static_cast<float>(shrink)};
  for (std::int64_t i = 0; i < n; ++i) row.gradient[i] += formula(row.x[i], weight[i], row.cotangent[i]);
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

void rms_norm_backward(Context& context, const RmsNormInput& input, const Tensor& cotangent,
                       Linearisation linearisation, const Tensor& gradient) {
  const std::int64_t n = input.x.size(1);
  const Row first{input.x.span<float>().data(), cotangent.span<float>().data(), gradient.span<float>().data()};
  const float* weight = input.weight.span<float>().data();
  parallel_blocks(context, input.x.size(0), rows_per_block(n), [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t t = begin; t < end; ++t) {
      const Row row{first.x + t * n, first.cotangent + t * n, first.gradient + t * n};
      add_gradient(row, weight, input.epsilon, linearisation, n);
    }
  });
}

}  // namespace tadapt::cpu

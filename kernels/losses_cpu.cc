#include <cmath>

#include "kernels/core/exponential.h"
#include "kernels/core/launch.h"
#include "kernels/core/vectorise.h"
#include "kernels/losses.h"

namespace tadapt::cpu {
namespace {
template <class Target>
TADAPT_INLINE double error_of(const float* prediction, const Target* target, std::int64_t n) {
  return ordered_sum(n, [&](std::int64_t i) {
    const double difference = prediction[i] - static_cast<float>(target[i]);
    return difference * difference;
  });
}
template <class Target>
TADAPT_INLINE void gradient_of(const float* prediction, const Target* target, float scale, std::int64_t n,
                               float* gradient) {
  for (std::int64_t i = 0; i < n; ++i) gradient[i] = scale * (prediction[i] - static_cast<float>(target[i]));
}
template <class Target>
TADAPT_INLINE void add_gradient_of(const float* prediction, const Target* target, float scale, std::int64_t n,
                                   float* gradient) {
  for (std::int64_t i = 0; i < n; ++i) gradient[i] += scale * (prediction[i] - static_cast<float>(target[i]));
}
TADAPT_VECTORISED double row_error(const float* prediction, const float* target, std::int64_t n) {
  return error_of(prediction, target, n);
}
TADAPT_VECTORISED double row_error(const float* prediction, const bfloat16* target, std::int64_t n) {
  return error_of(prediction, target, n);
}
TADAPT_VECTORISED void row_gradient(const float* prediction, const float* target, float scale, std::int64_t n,
                                    float* gradient) {
  gradient_of(prediction, target, scale, n, gradient);
}
TADAPT_VECTORISED void row_gradient(const float* prediction, const bfloat16* target, float scale, std::int64_t n,
                                    float* gradient) {
  gradient_of(prediction, target, scale, n, gradient);
}
TADAPT_VECTORISED void add_row_gradient(const float* prediction, const float* target, float scale, std::int64_t n,
                                        float* gradient) {
  add_gradient_of(prediction, target, scale, n, gradient);
}
TADAPT_VECTORISED void add_row_gradient(const float* prediction, const bfloat16* target, float scale, std::int64_t n,
                                        float* gradient) {
  add_gradient_of(prediction, target, scale, n, gradient);
}
template <class T>
TADAPT_INLINE double squares_of(const T* x, std::int64_t n) {
  return ordered_sum(n, [&](std::int64_t i) {
    const double number = static_cast<float>(x[i]);
    return number * number;
  });
}
TADAPT_VECTORISED double row_squares(const float* x, std::int64_t n) { return squares_of(x, n); }
TADAPT_VECTORISED double row_squares(const bfloat16* x, std::int64_t n) { return squares_of(x, n); }

/// The largest logit and its lowest index.
struct Top {
  float logit;
  std::int32_t index;
};
TADAPT_VECTORISED float largest(const float* x, std::int64_t n) {
  constexpr std::int64_t kLanes = 16;
  float lanes[kLanes];
  for (float& lane : lanes) lane = x[0];
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (std::int64_t lane = 0; lane < kLanes; ++lane)
      lanes[lane] = x[i + lane] > lanes[lane] ? x[i + lane] : lanes[lane];
  }
  for (; i < n; ++i) lanes[0] = x[i] > lanes[0] ? x[i] : lanes[0];
  float result = lanes[0];
  for (const float lane : lanes) result = lane > result ? lane : result;
  return result;
}
Top top_of(const float* x, std::int64_t n) {
  const float logit = largest(x, n);
  std::int32_t index = 0;
  while (index + 1 < n && x[index] != logit) ++index;
  return {logit, x[index] == logit ? index : 0};
}

TADAPT_VECTORISED double exponential_sum(const float* x, float shift, std::int64_t n) {
  return ordered_sum(n, [&](std::int64_t i) { return static_cast<double>(exponential(x[i] - shift)); });
}
/// Σ_v e^(target_v − target's largest) · ((target_v − target's largest) − (logit_v − model's largest))
TADAPT_VECTORISED double weighted_difference(const float* target, float target_shift, const float* logits, float shift,
                                             std::int64_t n) {
  return ordered_sum(n, [&](std::int64_t i) {
    const double log_ratio = (static_cast<double>(target[i]) - target_shift) - (static_cast<double>(logits[i]) - shift);
    return static_cast<double>(exponential(target[i] - target_shift)) * log_ratio;
  });
}

/// Every row's error, then take_gradient(prediction's row, target's row, place of its first number, n).
template <class TakeGradient>
void errors_of(Context& context, const Tensor& prediction, const Tensor& target, const Tensor& row_errors,
               TakeGradient take_gradient) {
  const std::int64_t n = prediction.size(1);
  const float* p = prediction.span<float>().data();
  const std::span<double> errors = row_errors.span<double>();
  const auto run = [&](const auto* goal) {
    parallel_blocks(context, prediction.size(0), rows_per_block(n), [&](std::int64_t begin, std::int64_t end, int) {
      for (std::int64_t t = begin; t < end; ++t) {
        errors[static_cast<std::size_t>(t)] = row_error(p + t * n, goal + t * n, n);
        take_gradient(p + t * n, goal + t * n, t * n, n);
      }
    });
  };
  if (target.dtype() == DType::kFloat32) return run(target.span<float>().data());
  run(target.span<bfloat16>().data());
}
}  // namespace

void squared_error(Context& context, const Tensor& prediction, const Tensor& target, float gradient_scale,
                   const Tensor& gradient, const Tensor& row_errors) {
  float* g = gradient.empty() ? nullptr : gradient.span<float>().data();
  errors_of(context, prediction, target, row_errors, [=](const float* p, const auto* goal, std::int64_t at, auto n) {
    if (g != nullptr) row_gradient(p, goal, gradient_scale, n, g + at);
  });
}

void add_squared_error(Context& context, const Tensor& prediction, const Tensor& target, float gradient_scale,
                       const Tensor& gradient, const Tensor& row_errors) {
  float* g = gradient.span<float>().data();
  errors_of(context, prediction, target, row_errors, [=](const float* p, const auto* goal, std::int64_t at, auto n) {
    add_row_gradient(p, goal, gradient_scale, n, g + at);
  });
}

void row_square_norms(Context& context, const Tensor& x, const Tensor& norms) {
  const std::int64_t n = x.size(1);
  const std::span<double> out = norms.span<double>();
  const auto run = [&](const auto* numbers) {
    parallel_blocks(context, x.size(0), rows_per_block(n), [&](std::int64_t begin, std::int64_t end, int) {
      for (std::int64_t t = begin; t < end; ++t) out[static_cast<std::size_t>(t)] = row_squares(numbers + t * n, n);
    });
  };
  if (x.dtype() == DType::kFloat32) return run(x.span<float>().data());
  run(x.span<bfloat16>().data());
}

void row_total(Context&, const Tensor& rows, const Tensor& total) {
  double sum = 0.0;
  for (const double value : rows.span<double>()) sum += value;
  total.span<double>()[0] = sum;
}

void token_kl(Context& context, const Tensor& target_logits, const Tensor& logits, const TokenKlOutput& out) {
  const std::int64_t n = logits.size(1);
  const float* targets = target_logits.span<float>().data();
  const float* models = logits.span<float>().data();
  const std::span<double> kl = out.kl.span<double>();
  const std::span<std::int32_t> target_argmax = out.target_argmax.span<std::int32_t>();
  const std::span<std::int32_t> argmax = out.argmax.span<std::int32_t>();
  const std::span<float> top_probability = out.target_top_probability.span<float>();
  parallel_blocks(context, logits.size(0), rows_per_block(n), [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t t = begin; t < end; ++t) {
      const float* target = targets + t * n;
      const float* model = models + t * n;
      const Top target_top = top_of(target, n), model_top = top_of(model, n);
      const double target_sum = exponential_sum(target, target_top.logit, n);
      const double model_sum = exponential_sum(model, model_top.logit, n);
      const double difference = weighted_difference(target, target_top.logit, model, model_top.logit, n);
      const auto at = static_cast<std::size_t>(t);
      kl[at] = difference / target_sum - std::log(target_sum) + std::log(model_sum);
      target_argmax[at] = target_top.index;
      argmax[at] = model_top.index;
      top_probability[at] = static_cast<float>(1.0 / target_sum);
    }
  });
}

}  // namespace tadapt::cpu

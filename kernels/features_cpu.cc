#include <cmath>

#include "kernels/core/launch.h"
#include "kernels/core/vectorise.h"
#include "kernels/features.h"

namespace tadapt::cpu {
namespace {
/// Columns one thread sums over all tokens: few enough that the sums stay in registers and first-level cache.
constexpr std::int64_t kColumns = 128;

TADAPT_VECTORISED double square_sum(const float* x, std::int64_t n) {
  return ordered_sum(n, [&](std::int64_t i) { return static_cast<double>(x[i]) * x[i]; });
}
TADAPT_VECTORISED void gradient_row(const float* activations, const float* norms, FeatureGradient formula,
                                    std::int64_t n, float* gradient) {
  for (std::int64_t i = 0; i < n; ++i) gradient[i] = formula(activations[i], norms[i], gradient[i]);
}
TADAPT_VECTORISED void add_scaled(float factor, const float* x, std::int64_t n, float* y) {
  for (std::int64_t i = 0; i < n; ++i) y[i] += factor * x[i];
}
TADAPT_VECTORISED void add_row(const float* x, std::int64_t n, double* sums) {
  for (std::int64_t i = 0; i < n; ++i) sums[i] += static_cast<double>(x[i]);
}
TADAPT_VECTORISED void add_row(const bfloat16* x, std::int64_t n, double* sums) {
  for (std::int64_t i = 0; i < n; ++i) sums[i] += static_cast<double>(static_cast<float>(x[i]));
}
TADAPT_VECTORISED void count_row(const float* x, std::int64_t n, std::int32_t* counts) {
  for (std::int64_t i = 0; i < n; ++i) counts[i] += x[i] > 0.0f ? 1 : 0;
}
TADAPT_VECTORISED std::int32_t active_in(const float* x, std::int64_t n) {
  std::int32_t count = 0;
  for (std::int64_t i = 0; i < n; ++i) count += x[i] > 0.0f ? 1 : 0;
  return count;
}

/// results_n = Σ_t of column n of x, by add(row, columns, sums), tokens in order.
template <class Sum, class T, class Add>
void sum_columns(const Context& context, const Tensor& x, const Tensor& results, Add add) {
  const std::int64_t tokens = x.size(0), n = x.size(1);
  const T* numbers = x.span<T>().data();
  const std::span<float> out = results.span<float>();
  parallel_blocks(context, n, kColumns, [&](std::int64_t begin, std::int64_t end, int) {
    Sum sums[kColumns] = {};
    for (std::int64_t t = 0; t < tokens; ++t) add(numbers + t * n + begin, end - begin, sums);
    for (std::int64_t i = begin; i < end; ++i) out[static_cast<std::size_t>(i)] = static_cast<float>(sums[i - begin]);
  });
}
}  // namespace

void decoder_norms(Context& context, const Tensor& decoder, const Tensor& norms) {
  const std::int64_t n = decoder.size(1);
  const float* rows = decoder.span<float>().data();
  const std::span<float> out = norms.span<float>();
  parallel_blocks(context, decoder.size(0), rows_per_block(n), [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t i = begin; i < end; ++i) {
      out[static_cast<std::size_t>(i)] = static_cast<float>(std::sqrt(square_sum(rows + i * n, n)));
    }
  });
}

void weighted_activations(Context&, const Tensor& activation_sums, const Tensor& norms, const Tensor& total) {
  const std::span<const float> sum = activation_sums.span<float>(), norm = norms.span<float>();
  double weighted = 0.0;
  for (std::size_t i = 0; i < sum.size(); ++i) weighted += static_cast<double>(sum[i]) * static_cast<double>(norm[i]);
  total.span<double>()[0] = weighted;
}

void feature_gradient(Context& context, const Tensor& activations, const Tensor& norms, float coefficient,
                      const Tensor& gradient) {
  const std::int64_t n = activations.size(1);
  const float* a = activations.span<float>().data();
  const float* norm = norms.span<float>().data();
  float* g = gradient.span<float>().data();
  parallel_blocks(context, activations.size(0), rows_per_block(n), [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t t = begin; t < end; ++t)
      gradient_row(a + t * n, norm, FeatureGradient{coefficient}, n, g + t * n);
  });
}

void sparsity_decoder_gradient(Context& context, const Tensor& activation_sums, const Tensor& decoder,
                               const Tensor& norms, float coefficient, const Tensor& gradient) {
  const std::int64_t n = decoder.size(1);
  const float* rows = decoder.span<float>().data();
  const std::span<const float> sums = activation_sums.span<float>(), norm = norms.span<float>();
  float* g = gradient.span<float>().data();
  parallel_blocks(context, decoder.size(0), rows_per_block(n), [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t i = begin; i < end; ++i) {
      const auto at = static_cast<std::size_t>(i);
      if (norm[at] > 0.0f && sums[at] != 0.0f)
        add_scaled(coefficient * sums[at] / norm[at], rows + i * n, n, g + i * n);
    }
  });
}

void column_sums(Context& context, const Tensor& x, const Tensor& sums) {
  const auto add = [](const auto* row, std::int64_t n, double* totals) { add_row(row, n, totals); };
  if (x.dtype() == DType::kFloat32) return sum_columns<double, float>(context, x, sums, add);
  sum_columns<double, bfloat16>(context, x, sums, add);
}

void active_counts(Context& context, const Tensor& activations, const Tensor& counts) {
  sum_columns<std::int32_t, float>(context, activations, counts, count_row);
}

void l0(Context& context, const Tensor& activations, const Tensor& counts) {
  const std::int64_t n = activations.size(1);
  const float* a = activations.span<float>().data();
  const std::span<std::int32_t> out = counts.span<std::int32_t>();
  parallel_blocks(context, activations.size(0), rows_per_block(n), [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t t = begin; t < end; ++t) out[static_cast<std::size_t>(t)] = active_in(a + t * n, n);
  });
}

}  // namespace tadapt::cpu

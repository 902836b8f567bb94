#include "kernels/attention_rows.h"

#include <cmath>

#include "kernels/core/vectorise.h"

namespace tadapt::cpu {
namespace {
template <int kSteps>
TADAPT_INLINE void add_rows(const Sum& sum, const float* rows, std::int64_t n) {
#pragma omp simd
  for (std::int64_t i = 0; i < n; ++i) {
    float y = sum.y[i];
#pragma GCC unroll 8
    for (int c = 0; c < kSteps; ++c) y = std::fma(sum.coefficients[c], rows[c * n + i], y);
    sum.y[i] = y;
  }
}

/// The same four times over, each row loaded once.
template <int kSteps>
TADAPT_INLINE void add_rows(const std::array<Sum, 4>& sums, const float* rows, std::int64_t n) {
  const Sum first = sums[0], second = sums[1], third = sums[2], fourth = sums[3];
#pragma omp simd
  for (std::int64_t i = 0; i < n; ++i) {
    float y0 = first.y[i], y1 = second.y[i], y2 = third.y[i], y3 = fourth.y[i];
#pragma GCC unroll 8
    for (int c = 0; c < kSteps; ++c) {
      const float row = rows[c * n + i];
      y0 = std::fma(first.coefficients[c], row, y0);
      y1 = std::fma(second.coefficients[c], row, y1);
      y2 = std::fma(third.coefficients[c], row, y2);
      y3 = std::fma(fourth.coefficients[c], row, y3);
    }
    first.y[i] = y0;
    second.y[i] = y1;
    third.y[i] = y2;
    fourth.y[i] = y3;
  }
}

TADAPT_INLINE Sum from(const Sum& sum, std::int64_t c) { return {sum.coefficients + c, sum.y}; }
TADAPT_INLINE std::array<Sum, 4> from(const std::array<Sum, 4>& sums, std::int64_t c) {
  return {from(sums[0], c), from(sums[1], c), from(sums[2], c), from(sums[3], c)};
}

template <class Sums>
TADAPT_INLINE void accumulate(const Sums& sums, const float* rows, std::int64_t count, std::int64_t n) {
  constexpr int kSteps = 8;
  std::int64_t c = 0;
  for (; c + kSteps <= count; c += kSteps) add_rows<kSteps>(from(sums, c), rows + c * n, n);
  for (; c < count; ++c) add_rows<1>(from(sums, c), rows + c * n, n);
}
}  // namespace

TADAPT_VECTORISED void accumulate_one(const Sum& sum, const float* rows, std::int64_t count, std::int64_t n) {
  accumulate(sum, rows, count, n);
}
TADAPT_VECTORISED void accumulate_four(const std::array<Sum, 4>& sums, const float* rows, std::int64_t count,
                                       std::int64_t n) {
  accumulate(sums, rows, count, n);
}

}  // namespace tadapt::cpu

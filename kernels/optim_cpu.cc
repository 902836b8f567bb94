#include "kernels/core/convert.h"
#include "kernels/core/launch.h"
#include "kernels/core/vectorise.h"
#include "kernels/optim.h"

namespace tadapt::cpu {
namespace {
static_assert(kElementsPerBlock % kSumBlock == 0);

TADAPT_VECTORISED double square_sum(const float* x, std::int64_t n) {
  return ordered_sum(n, [&](std::int64_t i) { return static_cast<double>(x[i]) * x[i]; });
}
TADAPT_VECTORISED double add_and_square(const float* x, float* y, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) y[i] += x[i];
  return ordered_sum(n, [&](std::int64_t i) { return static_cast<double>(y[i]) * y[i]; });
}
TADAPT_VECTORISED void update(float* master, float* first, float* second, const float* gradient,
                              const AdamWElement& element, std::int64_t n) {
#pragma omp simd
  for (std::int64_t i = 0; i < n; ++i) element(master[i], first[i], second[i], gradient[i]);
}
TADAPT_VECTORISED bool all_finite(const float* x, std::int64_t n) {
  std::uint32_t bad = 0;
  for (std::int64_t i = 0; i < n; ++i) {
    bad |= (std::bit_cast<std::uint32_t>(x[i]) & 0x7f800000u) == 0x7f800000u ? 1u : 0u;
  }
  return bad == 0;
}
}  // namespace

void block_square_sums(Context& context, const Tensor& x, const Tensor& sums) {
  const std::span<const float> numbers = x.span<float>();
  const std::span<double> out = sums.span<double>();
  parallel_blocks(context, x.size(0), kElementsPerBlock, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t at = begin; at < end; at += kSumBlock) {
      out[static_cast<std::size_t>(at / kSumBlock)] = square_sum(numbers.data() + at, std::min(kSumBlock, end - at));
    }
  });
}

void add_with_square_sums(Context& context, const Tensor& x, const Tensor& y, const Tensor& sums) {
  const float* from = x.span<float>().data();
  float* to = y.span<float>().data();
  double* out = sums.span<double>().data();
  parallel_blocks(context, x.size(0), kElementsPerBlock, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t at = begin; at < end; at += kSumBlock)
      out[at / kSumBlock] = add_and_square(from + at, to + at, std::min(kSumBlock, end - at));
  });
}

void adamw(Context& context, const AdamWTensors& tensors, const AdamWStep& step) {
  const AdamWElement element(step);
  const std::int64_t n = tensors.master.elements();
  float* master = tensors.master.span<float>().data();
  float* first = tensors.first_moment.span<float>().data();
  float* second = tensors.second_moment.span<float>().data();
  const float* gradient = tensors.gradient.span<float>().data();
  const bool copies = !tensors.working.empty();
  const Tensor from = tensors.master.reshaped({n});
  const Tensor to = copies ? tensors.working.reshaped({n}) : Tensor();
  parallel_blocks(context, n, kElementsPerBlock, [&](std::int64_t begin, std::int64_t end, int) {
    update(master + begin, first + begin, second + begin, gradient + begin, element, end - begin);
    if (copies) convert_elements(from.rows(begin, end), to.rows(begin, end));
  });
}

std::int64_t first_non_finite(Context& context, const Tensor& x) {
  const std::span<const float> numbers = x.span<float>();
  std::vector<std::int64_t> found(static_cast<std::size_t>(sum_blocks(x.size(0))), -1);
  parallel_blocks(context, x.size(0), kSumBlock, [&](std::int64_t begin, std::int64_t end, int) {
    if (all_finite(numbers.data() + begin, end - begin)) return;
    std::int64_t at = begin;
    while (std::isfinite(numbers[static_cast<std::size_t>(at)])) ++at;
    found[static_cast<std::size_t>(begin / kSumBlock)] = at;
  });
  for (const std::int64_t at : found) {
    if (at >= 0) return at;
  }
  return -1;
}

}  // namespace tadapt::cpu

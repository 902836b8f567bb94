#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/core/launch.h"
#include "kernels/core/vectorise.h"
#include "kernels/logit_losses.h"

namespace tadapt::cpu {
namespace {
/// Numbers of a row looked at together: they stay in first-level cache.
constexpr std::int64_t kBlock = 1024;

TADAPT_INLINE float largest(const float* x, std::int64_t n, float so_far) {
  constexpr std::int64_t kLanes = 16;
  float lanes[kLanes];
  for (float& lane : lanes) lane = so_far;
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

/// Of what came so far: the largest logit, and Σ e^(logit − largest).
struct OnlineSoftmax {
  float maximum = -std::numeric_limits<float>::infinity();
  double sum = 0;
  RowSoftmax finished() const { return {maximum, static_cast<float>(1.0 / sum)}; }
};
/// The block's exponentials; returns what the sums before it are to be multiplied by.
TADAPT_INLINE double take_block(const float* x, std::int64_t n, OnlineSoftmax& softmax, float* exponentials) {
  const float maximum = largest(x, n, softmax.maximum);
  const double correction = exponential(softmax.maximum - maximum);
  for (std::int64_t i = 0; i < n; ++i) exponentials[i] = exponential(x[i] - maximum);
  const double sum = ordered_sum(n, [&](std::int64_t i) { return static_cast<double>(exponentials[i]); });
  softmax = {maximum, softmax.sum * correction + sum};
  return correction;
}

/// KL(target ‖ model) in nats; the model's logits become weight · (q − p).
TADAPT_VECTORISED double kl_row(const float* target, float weight, std::int64_t n, float* logits) {
  float exponentials[2][kBlock];
  OnlineSoftmax p, q;
  double difference = 0;  // Σ e^(target − its largest) · (target − logit)
  for (std::int64_t begin = 0; begin < n; begin += kBlock) {
    const std::int64_t count = n - begin < kBlock ? n - begin : kBlock;
    const float *t = target + begin, *l = logits + begin;
    const double correction = take_block(t, count, p, exponentials[0]);
    take_block(l, count, q, exponentials[1]);
    const double more = ordered_sum(count, [&](std::int64_t i) {
      return static_cast<double>(exponentials[0][i]) * (static_cast<double>(t[i]) - static_cast<double>(l[i]));
    });
    difference = difference * correction + more;
  }
  const RowSoftmax target_softmax = p.finished(), softmax = q.finished();
  for (std::int64_t i = 0; i < n; ++i) logits[i] = weight * (softmax(logits[i]) - target_softmax(target[i]));
  return difference / p.sum - (static_cast<double>(p.maximum) - q.maximum) - std::log(p.sum) + std::log(q.sum);
}

/// −log q_label; the logits become weight · (q − 1 at the label).
TADAPT_VECTORISED double label_row(std::int32_t label, float weight, std::int64_t n, float* logits) {
  float exponentials[kBlock];
  OnlineSoftmax q;
  for (std::int64_t begin = 0; begin < n; begin += kBlock)
    take_block(logits + begin, n - begin < kBlock ? n - begin : kBlock, q, exponentials);
  const RowSoftmax softmax = q.finished();
  const double loss = static_cast<double>(q.maximum) - logits[label] + std::log(q.sum);
  const float at_label = weight * (softmax(logits[label]) - 1.0f);
  for (std::int64_t i = 0; i < n; ++i) logits[i] = weight * softmax(logits[i]);
  logits[label] = at_label;
  return loss;
}

/// losses_r = run(r, weight, logits of row r), but for rows that count for nothing.
template <class Run>
void each_row(Context& context, const Tensor& weights, const Tensor& logits, const Tensor& losses, Run run) {
  const std::int64_t n = logits.size(1);
  const std::span<const float> weight = weights.span<float>();
  const std::span<double> loss = losses.span<double>();
  float* rows = logits.span<float>().data();
  parallel_blocks(context, logits.size(0), rows_per_block(n), [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t r = begin; r < end; ++r) {
      const auto at = static_cast<std::size_t>(r);
      if (weight[at] == 0.0f) {
        std::fill_n(rows + r * n, n, 0.0f);
        loss[at] = 0;
      } else {
        loss[at] = run(r, weight[at], rows + r * n);
      }
    }
  });
}
}  // namespace

void kl_loss(Context& context, const Tensor& target_logits, const Tensor& weights, const Tensor& logits,
             const Tensor& losses) {
  const std::int64_t n = logits.size(1);
  const float* targets = target_logits.span<float>().data();
  each_row(context, weights, logits, losses,
           [&](std::int64_t r, float weight, float* row) { return kl_row(targets + r * n, weight, n, row); });
}

void next_token_loss(Context& context, const Tensor& labels, const Tensor& weights, const Tensor& logits,
                     const Tensor& losses) {
  const std::int64_t n = logits.size(1);
  const std::span<const std::int32_t> ids = labels.span<std::int32_t>();
  each_row(context, weights, logits, losses, [&](std::int64_t r, float weight, float* row) {
    const std::int32_t label = ids[static_cast<std::size_t>(r)];
    if (0 <= label && label < n) return label_row(label, weight, n, row);
    std::fill_n(row, n, std::numeric_limits<float>::quiet_NaN());
    return std::numeric_limits<double>::quiet_NaN();
  });
}

}  // namespace tadapt::cpu

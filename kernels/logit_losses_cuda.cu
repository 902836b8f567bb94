#include "kernels/core/elementwise.cuh"
#include "kernels/logit_losses.h"

namespace tadapt::cuda {
namespace {

constexpr int kThreads = 512;
constexpr int kWarps = kThreads / kWarp;

/// max over the block's threads, on every thread; NaNs are left out. `room` is free again on return.
__device__ float block_maximum(float value, float* room) {
  for (int distance = kWarp / 2; distance > 0; distance /= 2)
    value = fmaxf(value, __shfl_xor_sync(kAllLanes, value, distance));
  if (threadIdx.x % kWarp == 0) room[threadIdx.x / kWarp] = value;
  __syncthreads();
  value = room[0];
  for (int warp = 1; warp < kWarps; ++warp) value = fmaxf(value, room[warp]);
  __syncthreads();
  return value;
}

/// Of what this thread has seen: the largest logit, and Σ e^(logit − largest).
struct OnlineSoftmax {
  float maximum = -INFINITY;
  double sum = 0;
  /// Makes room for a pack; returns what sums before it are to be multiplied by.
  template <int kWidth>
  __device__ double raise(const Pack<float, kWidth>& pack) {
    float largest = maximum;
    for (int k = 0; k < kWidth; ++k) largest = fmaxf(largest, pack.values[k]);
    if (largest == maximum) return 1.0;
    const double correction = exponential(maximum - largest);
    maximum = largest;
    sum *= correction;
    return correction;
  }
  /// Joins all threads' sums; returns what this thread's own others are to be multiplied by.
  __device__ double join(float* floats, double* doubles) {
    const float largest = block_maximum(maximum, floats);
    const double correction = exponential(maximum - largest);
    sum = block_sum(sum * correction, doubles);
    maximum = largest;
    return correction;
  }
  __device__ RowSoftmax finished() const { return {maximum, static_cast<float>(1.0 / sum)}; }
};

struct Rows {
  const float* weights;
  float* logits;
  double* losses;
  std::int64_t vocabulary;
};

/// Whether the block's row counts for nothing; it then is done.
template <int kWidth>
__device__ bool is_skipped(const Rows& rows, float* logits) {
  if (rows.weights[blockIdx.x] != 0.0f) return false;
  for (std::int64_t v = static_cast<std::int64_t>(threadIdx.x) * kWidth; v < rows.vocabulary; v += kThreads * kWidth)
    store_pack(logits, v, Pack<float, kWidth>{});
  if (threadIdx.x == 0) rows.losses[blockIdx.x] = 0;
  return true;
}

/// A block a row, in packs of kWidth; reads both rows twice, the second time from cache where they fit, and writes one:
/// 12 to 20 bytes a logit pair. 34 registers on sm_90, 3 blocks an SM.
template <int kWidth>
__global__ void __launch_bounds__(kThreads) kl_rows(const float* target_logits, Rows rows) {
  __shared__ double doubles[kWarps];
  __shared__ float floats[kWarps];
  const std::int64_t n = rows.vocabulary, first = static_cast<std::int64_t>(threadIdx.x) * kWidth;
  const float* target = target_logits + blockIdx.x * n;
  float* logits = rows.logits + blockIdx.x * n;
  if (is_skipped<kWidth>(rows, logits)) return;
  OnlineSoftmax p, q;
  double difference = 0;  // Σ e^(target − its largest) · (target − logit)
  for (std::int64_t v = first; v < n; v += kThreads * kWidth) {
    const Pack<float, kWidth> t = load_pack<kWidth>(target, v), l = load_pack<kWidth>(logits, v);
    difference *= p.raise(t);
    q.raise(l);
    TADAPT_UNROLL
    for (int k = 0; k < kWidth; ++k) {
      const double term = exponential(t.values[k] - p.maximum);
      p.sum += term;
      difference += term * (static_cast<double>(t.values[k]) - static_cast<double>(l.values[k]));
      q.sum += static_cast<double>(exponential(l.values[k] - q.maximum));
    }
  }
  difference *= p.join(floats, doubles);
  difference = block_sum(difference, doubles);
  q.join(floats, doubles);
  if (threadIdx.x == 0)
    rows.losses[blockIdx.x] =
        difference / p.sum - (static_cast<double>(p.maximum) - q.maximum) - log(p.sum) + log(q.sum);
  const RowSoftmax target_softmax = p.finished(), softmax = q.finished();
  const float weight = rows.weights[blockIdx.x];
  for (std::int64_t v = first; v < n; v += kThreads * kWidth) {
    const Pack<float, kWidth> t = load_pack<kWidth>(target, v);
    Pack<float, kWidth> l = load_pack<kWidth>(logits, v);
    TADAPT_UNROLL
    for (int k = 0; k < kWidth; ++k) l.values[k] = weight * (softmax(l.values[k]) - target_softmax(t.values[k]));
    store_pack(logits, v, l);
  }
}

/// A block a row, in packs of kWidth; reads the row twice, the second time from cache where it fits, and writes it: 8
/// to 12 bytes a logit.
template <int kWidth>
__global__ void __launch_bounds__(kThreads) label_rows(const std::int32_t* labels, Rows rows) {
  __shared__ double doubles[kWarps];
  __shared__ float floats[kWarps];
  const std::int64_t n = rows.vocabulary, first = static_cast<std::int64_t>(threadIdx.x) * kWidth;
  float* logits = rows.logits + blockIdx.x * n;
  if (is_skipped<kWidth>(rows, logits)) return;
  const std::int64_t label = labels[blockIdx.x];
  const bool is_token = 0 <= label && label < n;
  OnlineSoftmax q;
  for (std::int64_t v = first; v < n; v += kThreads * kWidth) {
    const Pack<float, kWidth> l = load_pack<kWidth>(logits, v);
    q.raise(l);
    TADAPT_UNROLL
    for (int k = 0; k < kWidth; ++k) q.sum += static_cast<double>(exponential(l.values[k] - q.maximum));
  }
  q.join(floats, doubles);
  if (threadIdx.x == 0)
    rows.losses[blockIdx.x] = is_token ? static_cast<double>(q.maximum) - logits[label] + log(q.sum) : NAN;
  __syncthreads();  // the label's logit is read before it is overwritten
  const RowSoftmax softmax = q.finished();
  const float weight = is_token ? rows.weights[blockIdx.x] : NAN;
  for (std::int64_t v = first; v < n; v += kThreads * kWidth) {
    Pack<float, kWidth> l = load_pack<kWidth>(logits, v);
    TADAPT_UNROLL
    for (int k = 0; k < kWidth; ++k) l.values[k] = weight * (softmax(l.values[k]) - (v + k == label ? 1.0f : 0.0f));
    store_pack(logits, v, l);
  }
}

Rows rows_of(const Tensor& weights, const Tensor& logits, const Tensor& losses) {
  return {numbers<const float>(weights), numbers<float>(logits), numbers<double>(losses), logits.size(1)};
}

}  // namespace

void kl_loss(Context& context, const Tensor& target_logits, const Tensor& weights, const Tensor& logits,
             const Tensor& losses) {
  const auto* target = numbers<const float>(target_logits);
  const Rows rows = rows_of(weights, logits, losses);
  const bool packs = rows.vocabulary % 4 == 0 && aligned_to_16(target, rows.logits);
  launch(context, "kl_loss", {logits.size(0), kThreads}, packs ? kl_rows<4> : kl_rows<1>, target, rows);
}

void next_token_loss(Context& context, const Tensor& labels, const Tensor& weights, const Tensor& logits,
                     const Tensor& losses) {
  const Rows rows = rows_of(weights, logits, losses);
  const bool packs = rows.vocabulary % 4 == 0 && aligned_to_16(rows.logits);
  launch(context, "next_token_loss", {logits.size(0), kThreads}, packs ? label_rows<4> : label_rows<1>,
         numbers<const std::int32_t>(labels), rows);
}

}  // namespace tadapt::cuda

// Losses of next-token distributions: value and gradient in one go, the gradient in place of the logits.
#pragma once

#include "kernels/core/backends.h"
#include "kernels/core/exponential.h"

namespace tadapt {

/// The softmax of a row whose largest number and sum of exponentials relative to it are known.
struct RowSoftmax {
  float maximum, reciprocal_sum;
  TADAPT_HOST_DEVICE float operator()(float logit) const { return exponential(logit - maximum) * reciprocal_sum; }
};

TADAPT_BACKENDS(void kl_loss(Context& context, const Tensor& target_logits, const Tensor& weights, const Tensor& logits,
                             const Tensor& losses);
                void next_token_loss(Context& context, const Tensor& labels, const Tensor& weights,
                                     const Tensor& logits, const Tensor& losses);)

/// With p = softmax(target_logits_r), q = softmax(logits_r), where weights_r is not 0:
///   losses_r = Σ_v p_v (log p_v − log q_v),   logits_rv ← weights_r · (q_v − p_v)
/// which is the gradient of Σ_r weights_r · losses_r. Where weights_r is 0 loss and gradient are 0, whatever the
/// logits.
///   target_logits  [R, V] float32, V > 0, read only
///   weights        [R] float32, read only
///   logits         [R, V] float32, overwritten by the gradient; must not overlap target_logits
///   losses         [R] float64, overwritten, in nats, unweighted
/// Each row is gone over twice: an online softmax with fp32 exponentials and sums in double in a fixed order, then the
/// gradient in fp32. A row depends on itself only. A loss is good to about 2e-7 and so may come out that far below 0;
/// a NaN among a row's logits makes its loss and gradient NaN.
/// Source: Milakov & Gimelshein, "Online normalizer calculation for softmax", 2018. Oracle: finite differences in
/// double.
void kl_loss(Context& context, const Tensor& target_logits, const Tensor& weights, const Tensor& logits,
             const Tensor& losses);

/// As kl_loss, p being 1 for the row's label and 0 elsewhere: losses_r = −log q_label.
///   labels  [R] int32, read only. A label outside [0, V) on a row whose weight is not 0 makes its loss and gradient
///   NaN.
void next_token_loss(Context& context, const Tensor& labels, const Tensor& weights, const Tensor& logits,
                     const Tensor& losses);

}  // namespace tadapt

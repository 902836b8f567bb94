#include "kernels/logit_losses.h"

#include "kernels/core/check.h"
#include "kernels/core/dispatch.h"

namespace tadapt {

void kl_loss(Context& context, const Tensor& target_logits, const Tensor& weights, const Tensor& logits,
             const Tensor& losses) {
  require_tensor(context, "kl_loss: target_logits", target_logits, {DType::kFloat32}, {kAnySize, kAnySize});
  require_tensor(context, "kl_loss: weights", weights, {DType::kFloat32}, {target_logits.size(0)});
  require_tensor(context, "kl_loss: logits", logits, {DType::kFloat32}, {target_logits.size(0), target_logits.size(1)});
  require_tensor(context, "kl_loss: losses", losses, {DType::kFloat64}, {target_logits.size(0)});
  require_shape(logits.size(1) > 0, "kl_loss: a vocabulary of 0");
  TADAPT_DISPATCH(context, kl_loss, context, target_logits, weights, logits, losses);
}

void next_token_loss(Context& context, const Tensor& labels, const Tensor& weights, const Tensor& logits,
                     const Tensor& losses) {
  require_tensor(context, "next_token_loss: logits", logits, {DType::kFloat32}, {kAnySize, kAnySize});
  require_tensor(context, "next_token_loss: labels", labels, {DType::kInt32}, {logits.size(0)});
  require_tensor(context, "next_token_loss: weights", weights, {DType::kFloat32}, {logits.size(0)});
  require_tensor(context, "next_token_loss: losses", losses, {DType::kFloat64}, {logits.size(0)});
  require_shape(logits.size(1) > 0, "next_token_loss: a vocabulary of 0");
  TADAPT_DISPATCH(context, next_token_loss, context, labels, weights, logits, losses);
}

}  // namespace tadapt

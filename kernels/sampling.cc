#include "kernels/sampling.h"

#include "kernels/core/check.h"
#include "kernels/core/dispatch.h"

namespace tadapt {

void sample_tokens(Context& context, const Tensor& logits, const Tensor& draws, const SamplingRule& rule,
                   const Tensor& tokens) {
  require_tensor(context, "sample_tokens: logits", logits, {DType::kFloat32}, {kAnySize, kAnySize});
  require_tensor(context, "sample_tokens: draws", draws, {DType::kInt64}, {logits.size(0)});
  require_tensor(context, "sample_tokens: tokens", tokens, {DType::kInt32}, {logits.size(0)});
  require_shape(0 < logits.size(1) && logits.size(1) <= std::int64_t{1} << 23, "sample_tokens: a vocabulary of {}",
                logits.size(1));
  require_shape(rule.temperature >= 0 && rule.top_p > 0 && rule.top_p <= 1, "sample_tokens: temperature {}, top_p {}",
                rule.temperature, rule.top_p);
  TADAPT_DISPATCH(context, sample_tokens, context, logits, draws, rule, tokens);
}

}  // namespace tadapt

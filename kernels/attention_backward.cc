#include "kernels/attention_backward.h"

#include "kernels/core/check.h"
#include "kernels/core/dispatch.h"

namespace tadapt {

void causal_attention_backward(Context& context, const AttentionInput& input, const AttentionResult& result,
                               Linearisation linearisation, const AttentionGradient& gradient) {
  require_attention(context, input);
  const auto require = [&](const char* what, const Tensor& tensor, const Tensor& like) {
    require_tensor(context, what, tensor, {DType::kFloat32}, {like.size(0), like.size(1), like.size(2)});
  };
  require_tensor(context, "causal_attention_backward: log_sums", result.log_sums, {DType::kFloat32},
                 {input.query.size(0), input.query.size(1)});
  require("causal_attention_backward: cotangent", result.cotangent, input.query);
  require("causal_attention_backward: gradient of value", gradient.value, input.value);
  if (linearisation == Linearisation::kExact) {
    require("causal_attention_backward: out", result.out, input.query);
    require("causal_attention_backward: gradient of query", gradient.query, input.query);
    require("causal_attention_backward: gradient of key", gradient.key, input.key);
  } else {
    require_shape(gradient.query.empty() && gradient.key.empty(),
                  "causal_attention_backward: weights are constants, yet gradients of query and key were asked for");
  }
  TADAPT_DISPATCH(context, causal_attention_backward, context, input, result, linearisation, gradient);
}

}  // namespace tadapt

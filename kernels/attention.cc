#include "kernels/attention.h"

#include "kernels/core/check.h"
#include "kernels/core/dispatch.h"

namespace tadapt {

void causal_attention(Context& context, const AttentionInput& input, const Tensor& out, const Tensor& log_sums) {
  require_attention(context, input);
  const Tensor& query = input.query;
  require_tensor(context, "causal_attention: out", out, {DType::kFloat32},
                 {query.size(0), query.size(1), query.size(2)});
  if (!log_sums.empty())
    require_tensor(context, "causal_attention: log_sums", log_sums, {DType::kFloat32}, {query.size(0), query.size(1)});
  TADAPT_DISPATCH(context, causal_attention, context, input, out, log_sums);
}

}  // namespace tadapt

#include "kernels/losses.h"

#include "kernels/core/check.h"
#include "kernels/core/dispatch.h"

namespace tadapt {

void squared_error(Context& context, const Tensor& prediction, const Tensor& target, float gradient_scale,
                   const Tensor& gradient, const Tensor& row_errors) {
  require_tensor(context, "squared_error: prediction", prediction, {DType::kFloat32}, {kAnySize, kAnySize});
  require_tensor(context, "squared_error: target", target, {DType::kFloat32, DType::kBFloat16},
                 {prediction.size(0), prediction.size(1)});
  if (!gradient.empty()) {
    require_tensor(context, "squared_error: gradient", gradient, {DType::kFloat32},
                   {prediction.size(0), prediction.size(1)});
  }
  require_tensor(context, "squared_error: row_errors", row_errors, {DType::kFloat64}, {prediction.size(0)});
  TADAPT_DISPATCH(context, squared_error, context, prediction, target, gradient_scale, gradient, row_errors);
}

void add_squared_error(Context& context, const Tensor& prediction, const Tensor& target, float gradient_scale,
                       const Tensor& gradient, const Tensor& row_errors) {
  require_tensor(context, "add_squared_error: prediction", prediction, {DType::kFloat32}, {kAnySize, kAnySize});
  require_tensor(context, "add_squared_error: target", target, {DType::kFloat32, DType::kBFloat16},
                 {prediction.size(0), prediction.size(1)});
  require_tensor(context, "add_squared_error: gradient", gradient, {DType::kFloat32},
                 {prediction.size(0), prediction.size(1)});
  require_tensor(context, "add_squared_error: row_errors", row_errors, {DType::kFloat64}, {prediction.size(0)});
  TADAPT_DISPATCH(context, add_squared_error, context, prediction, target, gradient_scale, gradient, row_errors);
}

void row_square_norms(Context& context, const Tensor& x, const Tensor& norms) {
  require_tensor(context, "row_square_norms: x", x, {DType::kFloat32, DType::kBFloat16}, {kAnySize, kAnySize});
  require_tensor(context, "row_square_norms: norms", norms, {DType::kFloat64}, {x.size(0)});
  TADAPT_DISPATCH(context, row_square_norms, context, x, norms);
}

void row_total(Context& context, const Tensor& rows, const Tensor& total) {
  require_tensor(context, "row_total: rows", rows, {DType::kFloat64}, {kAnySize});
  require_tensor(context, "row_total: total", total, {DType::kFloat64}, {1});
  TADAPT_DISPATCH(context, row_total, context, rows, total);
}

void token_kl(Context& context, const Tensor& target_logits, const Tensor& logits, const TokenKlOutput& out) {
  require_tensor(context, "token_kl: target_logits", target_logits, {DType::kFloat32}, {kAnySize, kAnySize});
  require_tensor(context, "token_kl: logits", logits, {DType::kFloat32},
                 {target_logits.size(0), target_logits.size(1)});
  require_shape(logits.size(1) > 0, "token_kl: a vocabulary of 0");
  require_tensor(context, "token_kl: kl", out.kl, {DType::kFloat64}, {logits.size(0)});
  require_tensor(context, "token_kl: target_argmax", out.target_argmax, {DType::kInt32}, {logits.size(0)});
  require_tensor(context, "token_kl: argmax", out.argmax, {DType::kInt32}, {logits.size(0)});
  require_tensor(context, "token_kl: target_top_probability", out.target_top_probability, {DType::kFloat32},
                 {logits.size(0)});
  TADAPT_DISPATCH(context, token_kl, context, target_logits, logits, out);
}

}  // namespace tadapt

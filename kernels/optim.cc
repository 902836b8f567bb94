#include "kernels/optim.h"

#include "kernels/core/check.h"
#include "kernels/core/dispatch.h"

namespace tadapt {

void block_square_sums(Context& context, const Tensor& x, const Tensor& sums) {
  require_tensor(context, "block_square_sums: x", x, {DType::kFloat32}, {kAnySize});
  require_tensor(context, "block_square_sums: sums", sums, {DType::kFloat64}, {sum_blocks(x.size(0))});
  TADAPT_DISPATCH(context, block_square_sums, context, x, sums);
}

void add_with_square_sums(Context& context, const Tensor& x, const Tensor& y, const Tensor& sums) {
  require_tensor(context, "add_with_square_sums: x", x, {DType::kFloat32}, {kAnySize});
  require_tensor(context, "add_with_square_sums: y", y, {DType::kFloat32}, {x.size(0)});
  require_tensor(context, "add_with_square_sums: sums", sums, {DType::kFloat64}, {sum_blocks(x.size(0))});
  TADAPT_DISPATCH(context, add_with_square_sums, context, x, y, sums);
}

void adamw(Context& context, const AdamWTensors& tensors, const AdamWStep& step) {
  const auto check = [&](const char* what, const Tensor& tensor) {
    require_shape(tensor.shape() == tensors.master.shape() && tensor.device() == context.device(),
                  "adamw: {}: {} on {}, master {} on {}", what, tensor.shape(), name(tensor.device()),
                  tensors.master.shape(), name(context.device()));
    require_shape(tensor.dtype() == DType::kFloat32, "adamw: {}: expected float32, found {}", what,
                  name(tensor.dtype()));
  };
  check("master", tensors.master);
  check("first_moment", tensors.first_moment);
  check("second_moment", tensors.second_moment);
  check("gradient", tensors.gradient);
  if (!tensors.working.empty() && tensors.working.dtype() != DType::kBFloat16) check("working", tensors.working);
  require_shape(tensors.working.empty() || tensors.working.elements() == tensors.master.elements(),
                "adamw: working {}, master {}", tensors.working.shape(), tensors.master.shape());
  require_shape(step.step >= 1, "adamw: step {} (the first is 1)", step.step);
  TADAPT_DISPATCH(context, adamw, context, tensors, step);
}

std::int64_t first_non_finite(Context& context, const Tensor& x) {
  require_tensor(context, "first_non_finite: x", x, {DType::kFloat32}, {kAnySize});
  TADAPT_DISPATCH(context, first_non_finite, context, x);
}

}  // namespace tadapt

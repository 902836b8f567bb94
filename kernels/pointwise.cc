#include "kernels/pointwise.h"

#include "kernels/core/check.h"
#include "kernels/core/dispatch.h"

namespace tadapt {

void swiglu(Context& context, const Tensor& gate, const Tensor& up, const Tensor& out) {
  require_tensor(context, "swiglu: gate", gate, {DType::kFloat32}, {kAnySize, kAnySize});
  require_tensor(context, "swiglu: up", up, {DType::kFloat32}, {gate.size(0), gate.size(1)});
  require_tensor(context, "swiglu: out", out, {DType::kFloat32}, {gate.size(0), gate.size(1)});
  TADAPT_DISPATCH(context, swiglu, context, gate, up, out);
}

void swiglu_backward(Context& context, const GatedPair& input, const Tensor& cotangent, Linearisation linearisation,
                     const GatedPair& gradient) {
  const auto& [gate, up] = input;
  require_tensor(context, "swiglu_backward: gate", gate, {DType::kFloat32}, {kAnySize, kAnySize});
  require_tensor(context, "swiglu_backward: up", up, {DType::kFloat32}, {gate.size(0), gate.size(1)});
  require_tensor(context, "swiglu_backward: cotangent", cotangent, {DType::kFloat32}, {gate.size(0), gate.size(1)});
  require_tensor(context, "swiglu_backward: gradient of gate", gradient.gate, {DType::kFloat32},
                 {gate.size(0), gate.size(1)});
  require_tensor(context, "swiglu_backward: gradient of up", gradient.up, {DType::kFloat32},
                 {gate.size(0), gate.size(1)});
  TADAPT_DISPATCH(context, swiglu_backward, context, input, cotangent, linearisation, gradient);
}

void add_to(Context& context, const Tensor& x, const Tensor& y) {
  require_shape(x.shape() == y.shape() && x.dtype() == DType::kFloat32 && y.dtype() == DType::kFloat32,
                "add_to: expected two float32 tensors of one shape, found {} {} and {} {}", name(x.dtype()), x.shape(),
                name(y.dtype()), y.shape());
  TADAPT_DISPATCH(context, add_to, context, x, y);
}

void subtract_from(Context& context, const Tensor& x, const Tensor& y) {
  require_shape(x.shape() == y.shape() && x.dtype() == DType::kFloat32 && y.dtype() == DType::kFloat32,
                "subtract_from: expected two float32 tensors of one shape, found {} {} and {} {}", name(x.dtype()),
                x.shape(), name(y.dtype()), y.shape());
  TADAPT_DISPATCH(context, subtract_from, context, x, y);
}

void embed(Context& context, const Tensor& ids, const Tensor& table, const Tensor& out) {
  require_tensor(context, "embed: ids", ids, {DType::kInt32}, {kAnySize});
  require_tensor(context, "embed: table", table, {DType::kFloat32, DType::kBFloat16, DType::kFloat16},
                 {kAnySize, kAnySize});
  require_tensor(context, "embed: out", out, {DType::kFloat32}, {ids.size(0), table.size(1)});
  TADAPT_DISPATCH(context, embed, context, ids, table, out);
}

void convert(Context& context, const Tensor& from, const Tensor& to) {
  const auto is_float = [](const Tensor& tensor) {
    return tensor.dtype() == DType::kFloat32 || tensor.dtype() == DType::kBFloat16 || tensor.dtype() == DType::kFloat16;
  };
  require_shape(is_float(from) && is_float(to) && from.shape() == to.shape(),
                "convert: expected float tensors of one shape, found {} {} and {} {}", name(from.dtype()), from.shape(),
                name(to.dtype()), to.shape());
  TADAPT_DISPATCH(context, convert, context, from, to);
}

}  // namespace tadapt

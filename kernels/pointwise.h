// Ops that treat each element alone: gated activation, addition, table look-up, conversion.
#pragma once

#include "kernels/core/check.h"
#include "kernels/core/dispatch.h"
#include "kernels/core/exponential.h"

namespace tadapt {

/// silu(gate) · up
struct SwiGlu {
  TADAPT_HOST_DEVICE float operator()(float gate, float up) const { return gate / (1.0f + exponential(-gate)) * up; }
};

TADAPT_BACKENDS(void swiglu(Context& context, const Tensor& gate, const Tensor& up, const Tensor& out);
                void add_to(Context& context, const Tensor& x, const Tensor& y);
                void subtract_from(Context& context, const Tensor& x, const Tensor& y);
                void embed(Context& context, const Tensor& ids, const Tensor& table, const Tensor& out);
                void convert(Context& context, const Tensor& from, const Tensor& to);)

/// out = gate · σ(gate) · up
///   gate, up  [T, N] float32, read only
///   out       [T, N] float32, overwritten; may be gate or up
/// Source: Shazeer, "GLU Variants Improve Transformer", 2020. Oracle: the formula in double.
inline void swiglu(Context& context, const Tensor& gate, const Tensor& up, const Tensor& out) {
  require_tensor(context, "swiglu: gate", gate, {DType::kFloat32}, {kAnySize, kAnySize});
  require_tensor(context, "swiglu: up", up, {DType::kFloat32}, {gate.size(0), gate.size(1)});
  require_tensor(context, "swiglu: out", out, {DType::kFloat32}, {gate.size(0), gate.size(1)});
  TADAPT_DISPATCH(context, swiglu, context, gate, up, out);
}

/// y = y + x
///   x  any shape, float32, read only
///   y  of x's shape, float32, accumulated into
inline void add_to(Context& context, const Tensor& x, const Tensor& y) {
  require_shape(x.shape() == y.shape() && x.dtype() == DType::kFloat32 && y.dtype() == DType::kFloat32,
                "add_to: expected two float32 tensors of one shape, found {} {} and {} {}", name(x.dtype()), x.shape(),
                name(y.dtype()), y.shape());
  TADAPT_DISPATCH(context, add_to, context, x, y);
}

/// y = y − x, as add_to
inline void subtract_from(Context& context, const Tensor& x, const Tensor& y) {
  require_shape(x.shape() == y.shape() && x.dtype() == DType::kFloat32 && y.dtype() == DType::kFloat32,
                "subtract_from: expected two float32 tensors of one shape, found {} {} and {} {}", name(x.dtype()),
                x.shape(), name(y.dtype()), y.shape());
  TADAPT_DISPATCH(context, subtract_from, context, x, y);
}

/// out_t = table_{ids_t}
///   ids    [T] int32, read only
///   table  [V, D] float32, bfloat16 or float16, read only
///   out    [T, D] float32, overwritten (exact: every entry of the table is a float)
/// Throws ShapeError naming the first id outside [0, V) and its position; `out` is then untouched.
inline void embed(Context& context, const Tensor& ids, const Tensor& table, const Tensor& out) {
  require_tensor(context, "embed: ids", ids, {DType::kInt32}, {kAnySize});
  require_tensor(context, "embed: table", table, {DType::kFloat32, DType::kBFloat16, DType::kFloat16},
                 {kAnySize, kAnySize});
  require_tensor(context, "embed: out", out, {DType::kFloat32}, {ids.size(0), table.size(1)});
  TADAPT_DISPATCH(context, embed, context, ids, table, out);
}

/// to = from, each element rounded to nearest even (float16: overflow gives infinity; NaN stays NaN).
///   from  any shape; float32, bfloat16 or float16; read only
///   to    of from's shape; float32, bfloat16 or float16; overwritten; must not overlap `from`
inline void convert(Context& context, const Tensor& from, const Tensor& to) {
  const auto is_float = [](const Tensor& tensor) {
    return tensor.dtype() == DType::kFloat32 || tensor.dtype() == DType::kBFloat16 || tensor.dtype() == DType::kFloat16;
  };
  require_shape(is_float(from) && is_float(to) && from.shape() == to.shape(),
                "convert: expected float tensors of one shape, found {} {} and {} {}", name(from.dtype()), from.shape(),
                name(to.dtype()), to.shape());
  TADAPT_DISPATCH(context, convert, context, from, to);
}

}  // namespace tadapt

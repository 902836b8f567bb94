// Ops that treat each element alone: gated activation, addition, table look-up, conversion.
#pragma once

#include "kernels/core/backends.h"
#include "kernels/core/exponential.h"
#include "kernels/core/linearisation.h"

namespace tadapt {

/// silu(gate) · up
struct SwiGlu {
  TADAPT_HOST_DEVICE float operator()(float gate, float up) const { return gate / (1.0f + exponential(-gate)) * up; }
};

/// The two branches of a gated product, or their gradients: two tensors of one shape.
struct GatedPair {
  Tensor gate, up;
};

struct SwiGluGradient {
  float gate, up;
};
/// The gradient of silu(gate) · up.
template <Linearisation kLinearisation>
struct SwiGluBackward {
  TADAPT_HOST_DEVICE SwiGluGradient operator()(float gate, float up, float cotangent) const {
    const float sigmoid = 1.0f / (1.0f + exponential(-gate));
    if constexpr (kLinearisation == Linearisation::kRelp) {
      const float half = 0.5f * cotangent;
      return {half * up * sigmoid, half * (gate * sigmoid)};
    }
    const float slope = sigmoid * (1.0f + gate * (1.0f - sigmoid));
    return {cotangent * up * slope, cotangent * (gate * sigmoid)};
  }
};

TADAPT_BACKENDS(void swiglu(Context& context, const Tensor& gate, const Tensor& up, const Tensor& out);
                void swiglu_backward(Context& context, const GatedPair& input, const Tensor& cotangent,
                                     Linearisation linearisation, const GatedPair& gradient);
                void add_to(Context& context, const Tensor& x, const Tensor& y);
                void subtract_from(Context& context, const Tensor& x, const Tensor& y);
                void embed(Context& context, const Tensor& ids, const Tensor& table, const Tensor& out);
                void convert(Context& context, const Tensor& from, const Tensor& to);)

/// out = gate · σ(gate) · up
///   gate, up  [T, N] float32, read only
///   out       [T, N] float32, overwritten; may be gate or up
/// Source: Shazeer, "GLU Variants Improve Transformer", 2020. Oracle: the formula in double.
void swiglu(Context& context, const Tensor& gate, const Tensor& up, const Tensor& out);

/// With c = cotangent and σ = σ(gate):
///   gradient.gate = c · up · σ · (1 + gate · (1 − σ)),   gradient.up = c · gate · σ        kExact
///   gradient.gate = ½ · c · up · σ,                      gradient.up = ½ · c · gate · σ    kRelp: σ is a constant, and
///                                                        half of the product's gradient goes to each factor
///   input      gate and up [T, N] float32, as swiglu read them; read only
///   cotangent  [T, N] float32, dL/dout, read only
///   gradient   gate and up [T, N] float32, overwritten; each may be any of the inputs, gate and up also each other's
/// Oracle: finite differences in double.
void swiglu_backward(Context& context, const GatedPair& input, const Tensor& cotangent, Linearisation linearisation,
                     const GatedPair& gradient);

/// y = y + x
///   x  any shape, float32, read only
///   y  of x's shape, float32, accumulated into
void add_to(Context& context, const Tensor& x, const Tensor& y);

/// y = y − x, as add_to
void subtract_from(Context& context, const Tensor& x, const Tensor& y);

/// out_t = table_{ids_t}
///   ids    [T] int32, read only
///   table  [V, D] float32, bfloat16 or float16, read only
///   out    [T, D] float32, overwritten (exact: every entry of the table is a float)
/// Throws ShapeError naming the first id outside [0, V) and its position; `out` is then untouched.
void embed(Context& context, const Tensor& ids, const Tensor& table, const Tensor& out);

/// to = from, each element rounded to nearest even (float16: overflow gives infinity; NaN stays NaN).
///   from  any shape; float32, bfloat16 or float16; read only
///   to    of from's shape; float32, bfloat16 or float16; overwritten; must not overlap `from`
void convert(Context& context, const Tensor& from, const Tensor& to);

}  // namespace tadapt

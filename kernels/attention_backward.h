// Gradients of causal grouped-query attention.
#pragma once

#include "kernels/attention.h"
#include "kernels/core/linearisation.h"

namespace tadapt {

/// What causal_attention left, and what its result meets further on.
struct AttentionResult {
  Tensor out;        ///< [T, H, h] float32
  Tensor log_sums;   ///< [T, H] float32
  Tensor cotangent;  ///< [T, H, h] float32: dL/dout
};

struct AttentionGradient {
  Tensor query;  ///< [T, H, h] float32
  Tensor key;    ///< [T, Kv, h] float32
  Tensor value;  ///< [T, Kv, h] float32
};

/// dL/d(query · key), from the product of cotangent and value; `delta` is ⟨out, cotangent⟩ of the query's row.
struct AttentionSlope {
  float weight, delta, scale;
  TADAPT_HOST_DEVICE float operator()(float product) const { return weight * (product - delta) * scale; }
};

TADAPT_BACKENDS(void causal_attention_backward(Context& context, const AttentionInput& input,
                                               const AttentionResult& result, Linearisation linearisation,
                                               const AttentionGradient& gradient);)

/// With w_{t,n,s} = exp(query_{t,n} · key_{s,g} / √h − log_sums_{t,n}) for s <= t in one sequence, else 0, and
/// r_{t,n,s} = w_{t,n,s} · (⟨cotangent_{t,n}, value_{s,g}⟩ − ⟨cotangent_{t,n}, out_{t,n}⟩) / √h, where g = n·Kv / H:
///   gradient.value_{s,g} = Σ_{t, n of g} w_{t,n,s} · cotangent_{t,n}
///   gradient.query_{t,n} = Σ_s r_{t,n,s} · key_{s,g},   gradient.key_{s,g} = Σ_{t, n of g} r_{t,n,s} · query_{t,n}
///   input     as causal_attention read it, read only
///   result    what it wrote (log_sums included) and dL/dout, read only
///   gradient  overwritten; must not overlap the others. kRelp: weights are constants, so value only: `query`
///             and `key` are to be Tensor{}, and so may result.out be
/// fp32. Every sum runs in one order, over tiles counted from the sequence's start and over the heads of a group: a
/// result depends on its own sequence only, not on the packing or the threads. Never holds an [S, S] matrix.
/// On a GPU with compute = bfloat16 query, key, value, cotangent, w and r are rounded to bf16 before they are
/// multiplied; sums and softmax stay fp32. Then 4·T·(H + Kv)·h bytes of scratch hold the former four; 4·T·H bytes hold
/// the rows' deltas in either case. A GPU waits for nothing. Throws ShapeError as causal_attention, and where
/// `gradient` does not fit the linearisation. Source: Dao, "FlashAttention-2", 2023; for kRelp see Linearisation.
/// Oracle: the formula and finite differences, in double.
void causal_attention_backward(Context& context, const AttentionInput& input, const AttentionResult& result,
                               Linearisation linearisation, const AttentionGradient& gradient);

}  // namespace tadapt

// Causal grouped-query attention over sequences packed without padding.
#pragma once

#include "kernels/core/backends.h"
#include "kernels/core/check.h"

namespace tadapt {

/// What attention reads: H query heads share Kv key/value heads, H / Kv neighbours each.
struct AttentionInput {
  Tensor query;  ///< [T, H, h] float32
  Tensor key;    ///< [T, Kv, h] float32
  Tensor value;  ///< [T, Kv, h] float32
  /// [B + 1] int32 in host memory whatever the device: sequence b owns rows [offsets[b], offsets[b+1]); offsets[0] = 0,
  /// offsets[B] = T. Read before the op returns.
  Tensor offsets;
  /// Of the operands of its two products on a GPU: float32, or bfloat16 for tensor cores. The CPU uses float32 always.
  DType compute = DType::kFloat32;
};

/// ShapeError unless sequences cover [0, tokens] in order.
inline void require_sequences(std::span<const std::int32_t> offsets, std::int64_t tokens) {
  require_shape(offsets.front() == 0 && offsets.back() == tokens,
                "causal_attention: offsets run from {} to {}, tokens from 0 to {}", offsets.front(), offsets.back(),
                tokens);
  for (std::size_t b = 0; b + 1 < offsets.size(); ++b)
    require_shape(offsets[b] <= offsets[b + 1], "causal_attention: offset {} is {}, the next {}", b, offsets[b],
                  offsets[b + 1]);
}

/// ShapeError unless the input fits together and lies where the context computes.
inline void require_attention(const Context& context, const AttentionInput& input) {
  const auto& [query, key, value, offsets, compute] = input;
  require_tensor(context, "causal_attention: query", query, {DType::kFloat32}, {kAnySize, kAnySize, kAnySize});
  require_tensor(context, "causal_attention: key", key, {DType::kFloat32}, {query.size(0), kAnySize, query.size(2)});
  require_tensor(context, "causal_attention: value", value, {DType::kFloat32},
                 {query.size(0), key.size(1), query.size(2)});
  require_shape(offsets.device() == Device::kCpu && offsets.dtype() == DType::kInt32 && offsets.rank() == 1 &&
                    offsets.size(0) > 0,
                "causal_attention: offsets: expected int32 [B + 1] in cpu memory, found {} {} in {} memory",
                name(offsets.dtype()), offsets.shape(), name(offsets.device()));
  require_shape(key.size(1) > 0 && query.size(1) % key.size(1) == 0, "causal_attention: {} query heads, {} key heads",
                query.size(1), key.size(1));
  require_shape(compute == DType::kFloat32 || compute == DType::kBFloat16, "causal_attention: {} as compute type",
                name(compute));
}

TADAPT_BACKENDS(void causal_attention(Context& context, const AttentionInput& input, const Tensor& out,
                                      const Tensor& log_sums);)

/// out_{t,n} = Σ_{s<=t in t's sequence} softmax_s(query_{t,n} · key_{s,g} / √h) · value_{s,g},   g = n·Kv / H
///   out       [T, H, h] float32, overwritten; must not overlap the inputs
///   log_sums  [T, H] float32, overwritten: log Σ_s e^score, which the backward needs; Tensor{} for none. `out` has the
///             same bits either way
/// fp32, softmax online over fixed tiles of keys counted from the sequence's start: a result depends on its own
/// sequence up to t only, not on the packing or the threads. Never holds an [S, S] matrix.
/// On a GPU with compute = bfloat16 query, key, value and the softmax's weights (before their division by the sum) are
/// rounded to bf16; products, softmax and sums stay fp32, and a result depends on no more. Then 4·T·Kv·h bytes of
/// scratch hold keys and values. A GPU waits for nothing: offsets travel with the launch.
/// Throws ShapeError when H is no multiple of Kv, the offsets do not cover [0, T] in order, or h > 256 on a GPU.
/// Source: Milakov & Gimelshein, "Online normalizer calculation for softmax", 2018; Dao, "FlashAttention-2", 2023.
/// Oracle: the formula in double.
void causal_attention(Context& context, const AttentionInput& input, const Tensor& out,
                      const Tensor& log_sums = Tensor());

}  // namespace tadapt

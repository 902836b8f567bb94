// Attention of one new token per sequence over keys and values of earlier tokens, which lie in pages.
#pragma once

#include "kernels/core/backends.h"
#include "kernels/core/check.h"

namespace tadapt {

/// Tokens whose keys and values lie together in a page.
inline constexpr std::int64_t kPageTokens = 64;

/// The cached keys and values of one layer: N pages of kPageTokens tokens each. Keys lie by number, then by token, so
/// that scores of neighbouring tokens are neighbouring sums.
struct CachePages {
  Tensor keys;    ///< [N, Kv, h, kPageTokens] float32 or bfloat16
  Tensor values;  ///< [N, Kv, kPageTokens, h] of the same type
};

/// New tokens that attend to their own and all earlier positions of their sequences.
struct CachedQueries {
  Tensor query;      ///< [R, H, h] float32
  Tensor positions;  ///< [R] int32: position of the row in its sequence
  /// [R, M] int32: page M_ri holds positions [64·i, 64·(i+1)) of row r's sequence; entries beyond its position are not
  /// looked at.
  Tensor tables;
};

TADAPT_BACKENDS(void store_in_cache(Context& context, const Tensor& key, const Tensor& value, const Tensor& slots,
                                    const CachePages& pages);
                void cached_attention(Context& context, const CachedQueries& input, const CachePages& pages,
                                      const Tensor& out);)

namespace detail {
inline void require_pages(const Context& context, const char* keys, const char* values, const CachePages& pages,
                          std::int64_t groups, std::int64_t size) {
  require_tensor(context, keys, pages.keys, {DType::kFloat32, DType::kBFloat16}, {kAnySize, groups, size, kPageTokens});
  require_tensor(context, values, pages.values, {pages.keys.dtype()}, {pages.keys.size(0), groups, kPageTokens, size});
}
}  // namespace detail

/// Keys and values of new tokens go to their places, rounded to nearest even where the cache is bfloat16.
///   key, value  [T, Kv, h] float32, read only
///   slots       [T] int32, read only: token t goes to place slots_t % 64 of page slots_t / 64; no place twice
///   pages       overwritten in these places
/// Every slot must be in [0, 64·N): the CPU throws ShapeError for others, a GPU does not look.
void store_in_cache(Context& context, const Tensor& key, const Tensor& value, const Tensor& slots,
                    const CachePages& pages);

/// out_{r,n} = Σ_{s<=positions_r} softmax_s(query_{r,n} · key_{s,g} / √h) · value_{s,g},   g = n·Kv / H, keys and
/// values of row r's sequence
///   out  [R, H, h] float32, overwritten; must not overlap the query
/// fp32. A row depends on its own sequence only. On the CPU with a float32 cache it has the bits of causal_attention
/// over the whole sequence: the same tiles of 64 keys, the same order. A GPU joins parts of 512 keys, counted from the
/// sequence's start. Every entry of a table that is looked at must be in [0, N): the CPU throws ShapeError for others,
/// a GPU does not look. ShapeError when H is no multiple of Kv, a position is beyond the table, or h > 256 on a GPU.
/// Source: Milakov & Gimelshein, "Online normalizer calculation for softmax", 2018; Kwon et al., "Efficient Memory
/// Management for Large Language Model Serving with PagedAttention", 2023. Oracle: the formula in double.
void cached_attention(Context& context, const CachedQueries& input, const CachePages& pages, const Tensor& out);

}  // namespace tadapt

#include "kernels/cached_attention.h"

#include "kernels/core/check.h"
#include "kernels/core/dispatch.h"

namespace tadapt {

void store_in_cache(Context& context, const Tensor& key, const Tensor& value, const Tensor& slots,
                    const CachePages& pages) {
  require_tensor(context, "store_in_cache: key", key, {DType::kFloat32}, {kAnySize, kAnySize, kAnySize});
  require_tensor(context, "store_in_cache: value", value, {DType::kFloat32}, {key.size(0), key.size(1), key.size(2)});
  require_tensor(context, "store_in_cache: slots", slots, {DType::kInt32}, {key.size(0)});
  detail::require_pages(context, "store_in_cache: keys", "store_in_cache: values", pages, key.size(1), key.size(2));
  TADAPT_DISPATCH(context, store_in_cache, context, key, value, slots, pages);
}

void cached_attention(Context& context, const CachedQueries& input, const CachePages& pages, const Tensor& out) {
  const Tensor& query = input.query;
  require_tensor(context, "cached_attention: query", query, {DType::kFloat32}, {kAnySize, kAnySize, kAnySize});
  require_tensor(context, "cached_attention: positions", input.positions, {DType::kInt32}, {query.size(0)});
  require_tensor(context, "cached_attention: tables", input.tables, {DType::kInt32}, {query.size(0), kAnySize});
  detail::require_pages(context, "cached_attention: keys", "cached_attention: values", pages, kAnySize, query.size(2));
  require_tensor(context, "cached_attention: out", out, {DType::kFloat32},
                 {query.size(0), query.size(1), query.size(2)});
  const std::int64_t groups = pages.keys.size(1);
  require_shape(groups > 0 && query.size(1) % groups == 0, "cached_attention: {} query heads, {} key heads",
                query.size(1), groups);
  TADAPT_DISPATCH(context, cached_attention, context, input, pages, out);
}

}  // namespace tadapt

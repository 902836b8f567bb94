#include "runtime/model/key_value_cache.h"

namespace tadapt {

KeyValueCache::KeyValueCache(Context& context, const DecoderConfig& config, DType dtype, std::int64_t pages) {
  for (int layer = 0; layer < config.layers; ++layer)
    layers_.push_back({Buffer(context.device(), dtype, {pages, config.kv_heads, config.head_width, kPageTokens}),
                       Buffer(context.device(), dtype, {pages, config.kv_heads, kPageTokens, config.head_width})});
  for (std::int64_t page = pages - 1; page >= 0; --page) free_.push_back(static_cast<std::int32_t>(page));
}

std::int64_t KeyValueCache::bytes_per_page(const DecoderConfig& config, DType dtype) {
  return 2 * config.layers * config.key_width() * kPageTokens * static_cast<std::int64_t>(bytes_per_element(dtype));
}

std::int32_t KeyValueCache::take() {
  require_shape(!free_.empty(), "the cache of keys and values has no free page");
  const std::int32_t page = free_.back();
  free_.pop_back();
  return page;
}

CachePages KeyValueCache::layer(int layer) const {
  const Layer& pages = layers_.at(static_cast<std::size_t>(layer));
  return {pages.keys.tensor(), pages.values.tensor()};
}

}  // namespace tadapt

// KeyValueCache: keys and values of tokens that were already run, page by page, for attention of the next ones.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/cached_attention.h"
#include "runtime/model/decoder_config.h"

namespace tadapt {

/// Pages of all layers on one device; page p of every layer belongs to the same tokens. Who has which page is decided
/// here, what they hold elsewhere.
class KeyValueCache {
 public:
  /// `dtype`: float32 or bfloat16. DeviceError naming the bytes when they are not to be had.
  KeyValueCache(Context& context, const DecoderConfig& config, DType dtype, std::int64_t pages);

  /// Of one page in all layers.
  static std::int64_t bytes_per_page(const DecoderConfig& config, DType dtype);

  std::int64_t free_pages() const { return static_cast<std::int64_t>(free_.size()); }
  /// A page that nobody has; ShapeError when there is none.
  std::int32_t take();
  void give_back(std::int32_t page) { free_.push_back(page); }

  CachePages layer(int layer) const;

 private:
  struct Layer {
    Buffer keys, values;
  };
  std::vector<Layer> layers_;
  std::vector<std::int32_t> free_;
};

/// Pages for that many tokens of one sequence.
inline std::int64_t pages_for(std::int64_t tokens) { return (tokens + kPageTokens - 1) / kPageTokens; }

/// A batch whose keys and values are cached.
struct CachedBatch {
  const KeyValueCache& cache;
  Tensor slots;  ///< [T] int32: where each token's keys and values go, as store_in_cache takes it
  /// [T, M] int32: every row is the newest token of a sequence of its own, whose pages are these. Empty: the batch's
  /// sequences begin in it, and attend to nothing else.
  Tensor tables;
};

}  // namespace tadapt

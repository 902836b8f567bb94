// From rows in memory to the bytes of a shard file and its description.
#pragma once

#include "data/activation_cache_writer.h"

namespace tadapt {

struct ShardImage {
  Buffer bytes;
  CacheShard shard;  ///< first_row is left 0: only a manifest knows it
};

/// Rounds and lays out the rows. `label` (the file's path) stands in error messages; errors as write_shard() says.
ShardImage build_shard_image(const std::string& label, const CacheFormat& format, std::int64_t index,
                             const ShardRows& rows);

}  // namespace tadapt

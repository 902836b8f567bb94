// Writing activation caches: shards by anybody in any order, then one manifest.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <vector>

#include "data/activation_cache.h"
#include "data/file.h"

namespace tadapt {

struct CacheWriterOptions {
  std::filesystem::path directory;
  CacheFormat format;
  std::int64_t shard_count = 0;
  Provenance provenance;
};

/// The kept rows of one shard, in the order of their sequences and positions. Views only; all of them N rows.
struct ShardRows {
  std::span<const std::int32_t> ids;
  std::span<const std::int64_t> sequences;
  std::span<const std::int32_t> positions;
  struct Layer {
    Tensor mlp_in;     ///< [N,D] float32
    Tensor mlp_delta;  ///< [N,D] float32
  };
  std::vector<Layer> layers;  ///< one per format.layers
};

/// Writes shards and manifest of one cache. The bytes of every file are a function of options and rows alone, so ranks
/// may split the shards as they like, each with its own writer. A shard appears whole or not at all: temporary name,
/// fsync, rename, then its listing.
class ActivationCacheWriter {
 public:
  /// Makes the directory. ConfigError when the format cannot be.
  ActivationCacheWriter(FileSystem& files, CacheWriterOptions options);

  /// Whether this shard was written whole before: listing, size and checksum are right. Reads the whole file. A shard
  /// of another format or provenance is a ConfigError that names the directory and what differs.
  bool shard_is_whole(std::int64_t index) const;

  /// Writes a shard, which may have no rows. ShapeError when the rows do not fit together or do not belong into this
  /// shard; NonFiniteError naming layer, row, sequence and position when a number is not finite (or has no finite
  /// value in the row format); WriteError when it cannot be written.
  void write_shard(std::int64_t index, const ShardRows& rows);

  /// To be called by one rank when all shards are there: checks that they are, computes the statistics of each layer
  /// and writes the manifest. DataError when a shard is missing, damaged, or when there are no rows at all.
  CacheManifest finalize();

 private:
  /// The listing of a shard, if there is a readable one.
  std::optional<CacheShard> listed_shard(std::int64_t index) const;
  void require_rows_fit(std::int64_t index, const ShardRows& rows) const;

  FileSystem* files_;
  CacheWriterOptions options_;
};

}  // namespace tadapt

// Salvage: what can still be had of a damaged cache.
#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

#include "data/activation_cache_reader.h"

namespace tadapt {

/// Shards in which verify_cache() finds anything wrong. `cache` is opened as kDamaged.
std::vector<std::int64_t> damaged_shards(const ActivationCacheReader& cache);

/// Makes a directory a capture that was interrupted before these shards: their files become shard-000012.h5.damaged,
/// their listings and the manifest go. The same capture then makes them anew, with the same bytes.
void set_shards_aside(FileSystem& files, const std::filesystem::path& directory,
                      const std::vector<std::int64_t>& shards);

struct SalvagedRows {
  std::int64_t rows = 0;  ///< of the new cache
  std::int64_t lost = 0;
};

/// Writes a cache of all rows whose chunks are whole in every dataset into an empty `directory`; its provenance says
/// from how many rows. Rows keep their stored values (int8 rows are quantised again from them); ‖Δ‖² is that of the
/// stored Δ. DataError when not one row is left; ConfigError when the directory is not empty.
SalvagedRows copy_readable_rows(FileSystem& files, const ActivationCacheReader& cache,
                                const std::filesystem::path& directory);

}  // namespace tadapt

// Finding everything that is wrong with a cache.
#pragma once

#include <string>
#include <vector>

#include "data/activation_cache_reader.h"

namespace tadapt {

/// Reads all of the cache (opened as kDamaged) once and returns one line per problem; empty when it is sound. Checked:
/// each file's presence, size and checksum, each chunk's checksum, that rows, scales and norms are finite, and that
/// tokens are in order and belong into their shard. Lines name file, dataset, chunk and token rows.
std::vector<std::string> verify_cache(const ActivationCacheReader& cache);
/// The same of one shard.
std::vector<std::string> verify_shard(const ActivationCacheReader& cache, std::size_t index);

}  // namespace tadapt

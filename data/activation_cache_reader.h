// Reading activation caches by rows that are numbered through all shards.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "data/activation_cache.h"
#include "data/activation_shard.h"
#include "data/file.h"
#include "data/row_reader.h"

namespace tadapt {

/// kWhole: a shard file that is missing or of the wrong size is an error at once. kDamaged: such shards are errors only
/// where they are read.
enum class CacheOpen { kWhole, kDamaged };

struct CacheTokens {
  std::vector<std::int32_t> ids;
  std::vector<std::int64_t> sequences;
  std::vector<std::int32_t> positions;
};

/// A cache under its manifest. Reads are plain preads at the manifest's addresses, with every chunk's CRC32C checked
/// whenever it is read; any number of threads may read at once.
class ActivationCacheReader : public RowReader {
 public:
  /// MissingInputError without a manifest; DataError naming the file when the manifest or a shard is not right.
  ActivationCacheReader(FileSystem& files, std::filesystem::path directory, CacheOpen open = CacheOpen::kWhole);

  const std::filesystem::path& directory() const { return directory_; }
  const CacheManifest& manifest() const { return manifest_; }
  std::int64_t rows() const { return manifest_.rows; }
  std::int64_t width() const override { return manifest_.format.width; }
  /// int8 caches give float32.
  DType row_dtype() const override { return delivered_dtype(manifest_.format); }
  /// Position of a layer in the manifest; DataError when the cache does not hold it.
  std::size_t layer_index(int layer) const;

  void read_rows(int layer, std::int64_t begin, std::int64_t end, Tensor x_out, Tensor delta_out) const override;
  CacheTokens read_tokens(std::int64_t begin, std::int64_t end) const;

  /// The shard that holds a row, 0 <= row < rows().
  std::size_t shard_of_row(std::int64_t row) const;
  /// An open shard. A bounded number stays open between calls.
  std::shared_ptr<const ShardReader> shard(std::size_t index) const;
  /// What is wrong with a shard's file as a whole (missing, wrong size); empty when nothing is.
  std::string shard_file_problem(std::size_t index) const;

 private:
  void gather(std::size_t layer_index, RowKind kind, std::int64_t begin, std::int64_t end, Tensor out,
              ReadScratch& scratch) const;

  FileSystem* files_;
  std::filesystem::path directory_;
  CacheManifest manifest_;
  mutable std::mutex open_mutex_;
  mutable std::vector<std::shared_ptr<const ShardReader>> open_;  // most recently opened last
};

}  // namespace tadapt

// Reading one shard by the addresses in its listing: no HDF5, no locks, every chunk checked.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "data/activation_cache.h"
#include "data/file.h"

namespace tadapt {

enum class RowKind { kInput, kDelta };

/// A row of a shard that somebody wants, and where it is to go.
struct WantedRow {
  std::int64_t row = 0;  ///< number within the shard
  std::byte* to = nullptr;
};

/// CRC32C of one stored row, taken while its chunk was checked; several threads may write the same value.
using RowChecksum = std::atomic<std::uint32_t>;

/// Aligned memory for one reading thread; it only ever grows.
class ReadScratch {
 public:
  std::span<std::byte> bytes(std::size_t count);
  std::span<std::byte> scale_bytes(std::size_t count);

 private:
  Buffer bytes_, scale_bytes_;
};

/// The bytes that rows of this format are handed out in: int8 rows become float32, others stay as they are.
DType delivered_dtype(const CacheFormat& format);

/// An open shard. Any number of threads may read at once. Refers to `format` and `shard`, which must outlive it. A
/// wrong checksum is a DataError naming file, dataset, chunk and token rows.
class ShardReader {
 public:
  ShardReader(FileSystem& files, const std::filesystem::path& directory, const CacheFormat& format,
              const CacheShard& shard);

  const CacheShard& shard() const { return *shard_; }
  const File& file() const { return *file_; }

  /// One whole chunk, padding included; `out` holds layout.chunk_bytes().
  void read_chunk(std::size_t dataset, std::int64_t chunk, std::span<std::byte> out) const;

  /// A whole dataset of one dimension.
  template <class T>
  std::vector<T> column(std::size_t dataset) const {
    require_shape(layout(dataset).dtype == DTypeOf<T>::value && layout(dataset).shape.rank() == 1, "{} read as {}",
                  layout(dataset).name, name(DTypeOf<T>::value));
    std::vector<T> values(layout(dataset).chunk_bytes() / sizeof(T) * dataset_chunks(dataset));
    read_all_chunks(dataset, std::as_writable_bytes(std::span(values)));
    values.resize(static_cast<std::size_t>(shard_->rows));
    return values;
  }

  /// Reads a whole chunk of rows in pieces that stay in the processor's cache, checks it, and delivers the wanted rows
  /// of it (ascending) in delivered_dtype(). On an error some rows may have been written. `row_checksums`, one per row
  /// of the chunk or empty, are filled in for gather_rows().
  void gather_chunk(std::size_t layer_index, RowKind kind, std::int64_t chunk, std::span<const WantedRow> wanted,
                    ReadScratch& scratch, std::span<RowChecksum> row_checksums = {}) const;
  /// Delivers rows of one chunk, reading these rows only and comparing them with what gather_chunk() found.
  void gather_rows(std::size_t layer_index, RowKind kind, std::int64_t chunk, std::span<const WantedRow> wanted,
                   ReadScratch& scratch, std::span<const RowChecksum> row_checksums) const;

  /// "dir/shard-000012.h5: layers/3/mlp_in chunk 7 (token rows 4096 to 4680)", as error messages begin.
  std::string chunk_name(std::size_t dataset, std::int64_t chunk) const;

 private:
  const Hdf5Dataset& layout(std::size_t dataset) const { return shard_->datasets.at(dataset).layout; }
  std::size_t dataset_chunks(std::size_t dataset) const { return shard_->datasets.at(dataset).chunks.size(); }
  void read_all_chunks(std::size_t dataset, std::span<std::byte> out) const;
  void check(std::size_t dataset, std::int64_t chunk, std::uint32_t crc) const;
  std::span<const float> scales(std::size_t layer_index, RowKind kind, std::int64_t chunk, ReadScratch& scratch) const;

  const CacheFormat* format_;
  const CacheShard* shard_;
  std::unique_ptr<File> file_;
};

}  // namespace tadapt

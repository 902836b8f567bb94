#include "data/activation_cache_salvage.h"

#include <algorithm>
#include <optional>

#include "data/activation_cache_verify.h"
#include "data/activation_cache_writer.h"
#include "kernels/pointwise.h"

namespace tadapt {
namespace {

namespace fs = std::filesystem;

/// The rows of one shard that can be read, in memory.
class ReadableRows {
 public:
  ReadableRows(Context& context, const ActivationCacheReader& cache, std::size_t index)
      : context_(context), format_(cache.manifest().format), shard_(cache.shard(index)) {
    const CacheShard& listed = shard_->shard();
    if (listed.rows == 0) return;
    chunk_rows_ = listed.datasets.front().layout.chunk_rows;
    for (std::int64_t chunk = 0; chunk * chunk_rows_ < listed.rows; ++chunk)
      if (is_whole(chunk)) chunks_.push_back(chunk);
    for (const std::int64_t chunk : chunks_) add_tokens(chunk);
    for (std::size_t layer = 0; layer < format_.layers.size(); ++layer)
      for (const RowKind kind : {RowKind::kInput, RowKind::kDelta}) values_.push_back(read(layer, kind));
  }

  ShardRows rows() const {
    ShardRows rows{.ids = ids_, .sequences = sequences_, .positions = positions_, .layers = {}};
    for (std::size_t layer = 0; layer < format_.layers.size(); ++layer)
      rows.layers.push_back(values_.empty()
                                ? empty_layer()
                                : ShardRows::Layer{values_[2 * layer].tensor(), values_[2 * layer + 1].tensor()});
    return rows;
  }

 private:
  ShardRows::Layer empty_layer() const {
    const Tensor none(nullptr, DType::kFloat32, {0, format_.width}, Device::kCpu);
    return {none, none};
  }
  std::int64_t rows_of(std::int64_t chunk) const {
    return std::min(chunk_rows_, shard_->shard().rows - chunk * chunk_rows_);
  }
  bool is_whole(std::int64_t chunk) {
    for (std::size_t dataset = 0; dataset < shard_->shard().datasets.size(); ++dataset) {
      try {
        shard_->read_chunk(dataset, chunk, scratch_.bytes(shard_->shard().datasets[dataset].layout.chunk_bytes()));
      } catch (const DataError&) {
        return false;
      }
    }
    return true;
  }
  template <class T>
  void add(TokenColumn column, std::int64_t chunk, std::vector<T>& values) {
    const std::size_t dataset = dataset_index(format_, column);
    const auto bytes = scratch_.bytes(shard_->shard().datasets[dataset].layout.chunk_bytes());
    shard_->read_chunk(dataset, chunk, bytes);
    const auto* first = reinterpret_cast<const T*>(bytes.data());
    values.insert(values.end(), first, first + rows_of(chunk));
  }
  void add_tokens(std::int64_t chunk) {
    add(TokenColumn::kId, chunk, ids_);
    add(TokenColumn::kSequence, chunk, sequences_);
    add(TokenColumn::kPosition, chunk, positions_);
  }
  /// [rows, D] float32
  Buffer read(std::size_t layer, RowKind kind) {
    const auto count = static_cast<std::int64_t>(ids_.size());
    const DType dtype = delivered_dtype(format_);
    const Buffer delivered(Device::kCpu, dtype, {count, format_.width});
    const std::size_t row_bytes = static_cast<std::size_t>(format_.width) * bytes_per_element(dtype);
    auto* to = static_cast<std::byte*>(delivered.data());
    for (const std::int64_t chunk : chunks_) {
      std::vector<WantedRow> wanted;
      for (std::int64_t row = 0; row < rows_of(chunk); ++row, to += row_bytes)
        wanted.push_back({chunk * chunk_rows_ + row, to});
      shard_->gather_chunk(layer, kind, chunk, wanted, scratch_);
    }
    Buffer values(Device::kCpu, DType::kFloat32, {count, format_.width});
    convert(context_, delivered.tensor(), values.tensor());
    return values;
  }

  Context& context_;
  const CacheFormat& format_;
  std::shared_ptr<const ShardReader> shard_;
  ReadScratch scratch_;
  std::int64_t chunk_rows_ = 0;
  std::vector<std::int64_t> chunks_;
  std::vector<std::int32_t> ids_, positions_;
  std::vector<std::int64_t> sequences_;
  std::vector<Buffer> values_;  // x and Δ of each layer
};

/// Nothing where the file is not there.
std::optional<ReadableRows> readable_rows(Context& context, const ActivationCacheReader& cache, std::size_t index) {
  try {
    return ReadableRows(context, cache, index);
  } catch (const MissingInputError&) {
    return std::nullopt;
  }
}

}  // namespace

std::vector<std::int64_t> damaged_shards(const ActivationCacheReader& cache) {
  std::vector<std::int64_t> damaged;
  for (std::size_t i = 0; i < cache.manifest().shards.size(); ++i)
    if (!verify_shard(cache, i).empty()) damaged.push_back(cache.manifest().shards[i].index);
  return damaged;
}

void set_shards_aside(FileSystem& files, const fs::path& directory, const std::vector<std::int64_t>& shards) {
  // First the listings: from then on no shard counts as there that is not whole.
  for (const std::int64_t shard : shards) files.remove(directory / listing_file_name(shard));
  for (const std::int64_t shard : shards) {
    const fs::path file = directory / shard_file_name(shard);
    fs::path aside = file;
    aside += ".damaged";
    if (files.exists(file)) files.rename(file, aside);
  }
  files.remove(directory / kManifestFile);
  files.sync_directory(directory);
}

SalvagedRows copy_readable_rows(FileSystem& files, const ActivationCacheReader& cache, const fs::path& directory) {
  if (files.exists(directory) && !files.list(directory).empty())
    throw ConfigError("{}: is not empty; salvaged rows go into a folder of their own", directory.string());
  const CacheManifest& manifest = cache.manifest();
  Provenance provenance = manifest.provenance;
  provenance["salvaged_from_rows"] = std::to_string(manifest.rows);
  ActivationCacheWriter writer(files, {.directory = directory,
                                       .format = manifest.format,
                                       .shard_count = static_cast<std::int64_t>(manifest.shards.size()),
                                       .provenance = std::move(provenance)});
  Context context = Context::cpu(1);
  const Tensor none(nullptr, DType::kFloat32, {0, manifest.format.width}, Device::kCpu);
  for (std::size_t i = 0; i < manifest.shards.size(); ++i) {
    const auto rows = readable_rows(context, cache, i);
    writer.write_shard(manifest.shards[i].index, rows ? rows->rows()
                                                      : ShardRows{.ids = {},
                                                                  .sequences = {},
                                                                  .positions = {},
                                                                  .layers = std::vector<ShardRows::Layer>(
                                                                      manifest.format.layers.size(), {none, none})});
  }
  const CacheManifest salvaged = writer.finalize();
  return {salvaged.rows, manifest.rows - salvaged.rows};
}

}  // namespace tadapt

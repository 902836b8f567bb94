// ActivationCacheWriter: shards made durable one by one, and the manifest over them.
#include "data/activation_cache_writer.h"

#include <algorithm>
#include <cmath>

#include "data/activation_shard.h"
#include "data/delta_statistics.h"
#include "data/shard_image.h"
#include "kernels/core/error.h"

namespace tadapt {
namespace {
namespace fs = std::filesystem;

/// Throws ConfigError naming the first difference between what lies in a directory and what is to be written there.
void require_same_capture(const fs::path& listing_path, const CacheListing& found, const CacheWriterOptions& options) {
  const auto fail = [&](const std::string& what) {
    throw ConfigError("{}: comes from another capture ({}); choose another directory or remove this one",
                      listing_path.string(), what);
  };
  Provenance all = options.provenance;
  all.insert(found.provenance.begin(), found.provenance.end());
  for (const auto& [key, ignored] : all) {
    const auto here = found.provenance.find(key), wanted = options.provenance.find(key);
    const std::string found_text = here == found.provenance.end() ? "nothing" : here->second;
    const std::string wanted_text = wanted == options.provenance.end() ? "nothing" : wanted->second;
    if (found_text != wanted_text) fail(fmt::format("{}: {} there, {} wanted", key, found_text, wanted_text));
  }
  if (found.format != options.format) fail("layers, width, row format, chunk_bytes or sequences_per_shard differ");
}

/// CRC32C of a whole file, read in pieces.
std::uint32_t file_crc32c(const File& file) {
  constexpr std::uint64_t kPieceBytes = std::uint64_t{1} << 20;
  const std::uint64_t size = file.size();
  std::vector<std::byte> piece(std::min(kPieceBytes, size));
  std::uint32_t crc = 0;
  for (std::uint64_t offset = 0; offset < size; offset += kPieceBytes) {
    const auto part = std::span(piece).first(std::min(kPieceBytes, size - offset));
    file.read(offset, part);
    crc = crc32c(part, crc);
  }
  return crc;
}

double root_ratio(double error_square, double square) { return square > 0 ? std::sqrt(error_square / square) : 0.0; }

/// Sums over the shards in their order.
RoundingSums total_rounding(const std::vector<CacheShard>& shards, std::size_t layer_index) {
  RoundingSums total;
  for (const CacheShard& shard : shards) {
    const RoundingSums& sums = shard.rounding[layer_index];
    total.input_square += sums.input_square;
    total.input_error_square += sums.input_error_square;
    total.delta_square += sums.delta_square;
    total.delta_error_square += sums.delta_error_square;
  }
  return total;
}

/// One column of all shards, end to end.
template <class T>
std::vector<T> whole_column(FileSystem& files, const fs::path& directory, const CacheManifest& manifest,
                            std::size_t dataset) {
  std::vector<T> values;
  for (const CacheShard& shard : manifest.shards) {
    const std::vector<T> part = ShardReader(files, directory, manifest.format, shard).column<T>(dataset);
    values.insert(values.end(), part.begin(), part.end());
  }
  return values;
}
}  // namespace

ActivationCacheWriter::ActivationCacheWriter(FileSystem& files, CacheWriterOptions options)
    : files_(&files), options_(std::move(options)) {
  check_format(options_.format);
  files_->make_directories(options_.directory);
}

std::optional<CacheShard> ActivationCacheWriter::listed_shard(std::int64_t index) const {
  const fs::path path = options_.directory / listing_file_name(index);
  if (!files_->exists(path)) return std::nullopt;
  try {
    CacheListing listing = parse_listing(read_text(*files_, path), path);
    require_same_capture(path, listing, options_);
    if (listing.shard.index == index) return std::move(listing.shard);
  } catch (const DataError&) {  // a torn listing: the shard is written anew
  }
  return std::nullopt;
}

bool ActivationCacheWriter::shard_is_whole(std::int64_t index) const {
  const std::optional<CacheShard> shard = listed_shard(index);
  const fs::path path = options_.directory / shard_file_name(index);
  if (!shard || !files_->exists(path) || files_->file_size(path) != shard->bytes) return false;
  return file_crc32c(*files_->open(path, OpenMode::kRead)) == shard->crc32c;
}

void ActivationCacheWriter::require_rows_fit(std::int64_t index, const ShardRows& rows) const {
  const CacheFormat& format = options_.format;
  const std::size_t count = rows.ids.size();
  const std::string what = shard_file_name(index);
  require_shape(index >= 0 && index < options_.shard_count, "{}: only {} shards", what, options_.shard_count);
  require_shape(rows.sequences.size() == count && rows.positions.size() == count,
                "{}: {} ids, {} sequences, {} positions", what, count, rows.sequences.size(), rows.positions.size());
  require_shape(rows.layers.size() == format.layers.size(), "{}: {} layers, {} wanted", what, rows.layers.size(),
                format.layers.size());
  const Shape shape{static_cast<std::int64_t>(count), format.width};
  for (const ShardRows::Layer& layer : rows.layers) {
    require_shape(layer.mlp_in.shape() == shape && layer.mlp_delta.shape() == shape, "{}: rows of {} and {}, {} wanted",
                  what, layer.mlp_in.shape().to_string(), layer.mlp_delta.shape().to_string(), shape.to_string());
  }
  const std::int64_t first = index * format.sequences_per_shard;
  for (std::size_t i = 0; i < count; ++i) {
    const std::int64_t sequence = rows.sequences[i];
    require_shape(sequence >= first && sequence - first < format.sequences_per_shard, "{}: row {} is of sequence {}",
                  what, i, sequence);
    require_shape(rows.positions[i] >= 0, "{}: row {} is at position {}", what, i, rows.positions[i]);
    if (i == 0) continue;
    const bool later = sequence > rows.sequences[i - 1] ||
                       (sequence == rows.sequences[i - 1] && rows.positions[i] > rows.positions[i - 1]);
    require_shape(later, "{}: row {} (sequence {}, position {}) is out of order", what, i, sequence, rows.positions[i]);
  }
}

void ActivationCacheWriter::write_shard(std::int64_t index, const ShardRows& rows) {
  require_rows_fit(index, rows);
  const fs::path path = options_.directory / shard_file_name(index);
  const fs::path listing_path = options_.directory / listing_file_name(index);
  const ShardImage image = build_shard_image(path.string(), options_.format, index, rows);
  fs::path temporary = path;
  temporary += ".tmp";
  {
    const std::unique_ptr<File> file = files_->open(temporary, OpenMode::kCreate);
    file->preallocate(image.bytes.bytes());
    file->write(0, std::as_bytes(image.bytes.span<std::int8_t>()));
    file->sync();
  }
  files_->rename(temporary, path);
  files_->sync_directory(options_.directory);
  write_atomically(*files_, listing_path, to_json(CacheListing{options_.format, options_.provenance, image.shard}));
}

CacheManifest ActivationCacheWriter::finalize() {
  CacheManifest manifest{options_.format, options_.provenance, 0, {}, {}};
  for (std::int64_t i = 0; i < options_.shard_count; ++i) {
    std::optional<CacheShard> shard = listed_shard(i);
    const fs::path path = options_.directory / shard_file_name(i);
    if (!shard || !files_->exists(path) || files_->file_size(path) != shard->bytes) {
      throw DataError("{}: missing or not whole (shard {} of {}), so there can be no manifest", path.string(), i,
                      options_.shard_count);
    }
    shard->first_row = manifest.rows;
    manifest.rows += shard->rows;
    manifest.shards.push_back(std::move(*shard));
  }
  if (manifest.rows == 0) throw DataError("{}: not one row was kept", options_.directory.string());

  const CacheFormat& format = manifest.format;
  const auto positions =
      whole_column<std::int32_t>(*files_, options_.directory, manifest, dataset_index(format, TokenColumn::kPosition));
  for (std::size_t i = 0; i < format.layers.size(); ++i) {
    const auto norms = whole_column<double>(*files_, options_.directory, manifest,
                                            dataset_index(format, i, LayerColumn::kDeltaSquareNorm));
    const DeltaStatistics delta = delta_statistics(norms, positions);
    const RoundingSums rounding = total_rounding(manifest.shards, i);
    manifest.layers.push_back({delta.scale_square, delta.largest_rows_share, delta.first_position_share,
                               root_ratio(rounding.input_error_square, rounding.input_square),
                               root_ratio(rounding.delta_error_square, rounding.delta_square)});
  }
  write_atomically(*files_, options_.directory / kManifestFile, to_json(manifest));
  return manifest;
}

}  // namespace tadapt

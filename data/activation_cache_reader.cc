// ActivationCacheReader: from row numbers to shards and chunks.
#include "data/activation_cache_reader.h"

#include <algorithm>

#include "kernels/core/error.h"

namespace tadapt {
namespace {
constexpr std::size_t kMostOpenShards = 128;
}

ActivationCacheReader::ActivationCacheReader(FileSystem& files, std::filesystem::path directory, CacheOpen open)
    : files_(&files), directory_(std::move(directory)) {
  const std::filesystem::path path = directory_ / kManifestFile;
  manifest_ = parse_manifest(read_text(files, path), path);
  for (std::size_t i = 0; open == CacheOpen::kWhole && i < manifest_.shards.size(); ++i) {
    if (const std::string problem = shard_file_problem(i); !problem.empty()) throw DataError("{}", problem);
  }
}

std::string ActivationCacheReader::shard_file_problem(std::size_t index) const {
  const CacheShard& shard = manifest_.shards.at(index);
  const std::filesystem::path path = directory_ / shard_file_name(shard.index);
  if (!files_->exists(path)) {
    return fmt::format("{}: missing; it holds token rows {} to {}", path.string(), shard.first_row,
                       shard.first_row + shard.rows - 1);
  }
  const std::uint64_t bytes = files_->file_size(path);
  if (bytes == shard.bytes) return {};
  return fmt::format("{}: {} bytes, {} were written", path.string(), bytes, shard.bytes);
}

std::size_t ActivationCacheReader::layer_index(int layer) const {
  const std::vector<int>& layers = manifest_.format.layers;
  const auto found = std::lower_bound(layers.begin(), layers.end(), layer);
  if (found == layers.end() || *found != layer) {
    throw DataError("{}: layer {} is not in this cache", directory_.string(), layer);
  }
  return static_cast<std::size_t>(found - layers.begin());
}

std::size_t ActivationCacheReader::shard_of_row(std::int64_t row) const {
  require_shape(row >= 0 && row < rows(), "row {} of {}", row, rows());
  const auto after =
      std::upper_bound(manifest_.shards.begin(), manifest_.shards.end(), row,
                       [](std::int64_t value, const CacheShard& shard) { return value < shard.first_row; });
  // Shards without rows start where their successor does: the last one that starts at or before the row holds it.
  return static_cast<std::size_t>(after - manifest_.shards.begin()) - 1;
}

std::shared_ptr<const ShardReader> ActivationCacheReader::shard(std::size_t index) const {
  const CacheShard* wanted = &manifest_.shards.at(index);
  {
    const std::lock_guard lock(open_mutex_);
    const auto found =
        std::find_if(open_.begin(), open_.end(), [&](const auto& one) { return &one->shard() == wanted; });
    if (found != open_.end()) return *found;
  }
  auto opened = std::make_shared<const ShardReader>(*files_, directory_, manifest_.format, *wanted);
  const std::lock_guard lock(open_mutex_);
  if (open_.size() == kMostOpenShards) open_.erase(open_.begin());
  open_.push_back(opened);
  return opened;
}

void ActivationCacheReader::gather(std::size_t layer_index, RowKind kind, std::int64_t begin, std::int64_t end,
                                   Tensor out, ReadScratch& scratch) const {
  const std::size_t row_bytes = static_cast<std::size_t>(width()) * bytes_per_element(row_dtype());
  auto* to = static_cast<std::byte*>(out.data());
  std::vector<WantedRow> wanted;
  while (begin < end) {
    const auto reader = shard(shard_of_row(begin));
    const CacheShard& listed = reader->shard();
    const std::int64_t chunk_rows = listed.datasets.front().layout.chunk_rows;
    const std::int64_t chunk = (begin - listed.first_row) / chunk_rows;
    const std::int64_t stop =
        std::min({end, listed.first_row + (chunk + 1) * chunk_rows, listed.first_row + listed.rows});
    wanted.clear();
    for (; begin < stop; ++begin, to += row_bytes) wanted.push_back({begin - listed.first_row, to});
    reader->gather_chunk(layer_index, kind, chunk, wanted, scratch);
  }
}

void ActivationCacheReader::read_rows(int layer, std::int64_t begin, std::int64_t end, Tensor x_out,
                                      Tensor delta_out) const {
  require_shape(begin >= 0 && begin <= end && end <= rows(), "rows [{}, {}) of {}", begin, end, rows());
  for (const Tensor& out : {x_out, delta_out}) {
    require_shape(
        out.dtype() == row_dtype() && out.device() == Device::kCpu && out.shape() == Shape({end - begin, width()}),
        "rows [{}, {}) of a cache of width {} ({}) into {} {}", begin, end, width(), name(row_dtype()),
        name(out.dtype()), out.shape().to_string());
  }
  ReadScratch scratch;
  gather(layer_index(layer), RowKind::kInput, begin, end, x_out, scratch);
  gather(layer_index(layer), RowKind::kDelta, begin, end, delta_out, scratch);
}

CacheTokens ActivationCacheReader::read_tokens(std::int64_t begin, std::int64_t end) const {
  require_shape(begin >= 0 && begin <= end && end <= rows(), "rows [{}, {}) of {}", begin, end, rows());
  CacheTokens tokens;
  const CacheFormat& format = manifest_.format;
  while (begin < end) {
    const auto reader = shard(shard_of_row(begin));
    const std::int64_t first_row = reader->shard().first_row;
    const std::int64_t stop = std::min(end, first_row + reader->shard().rows);
    const auto append = [&]<class T>(std::vector<T>& to, TokenColumn column) {
      const std::vector<T> all = reader->column<T>(dataset_index(format, column));
      to.insert(to.end(), all.begin() + (begin - first_row), all.begin() + (stop - first_row));
    };
    append(tokens.ids, TokenColumn::kId);
    append(tokens.sequences, TokenColumn::kSequence);
    append(tokens.positions, TokenColumn::kPosition);
    begin = stop;
  }
  return tokens;
}

}  // namespace tadapt

// Layout and size of activation caches.
#include "data/activation_cache.h"

#include <algorithm>
#include <string>

#include "kernels/core/error.h"

namespace tadapt {
namespace {
constexpr std::int64_t kLargestWidth = std::int64_t{1} << 24;
constexpr std::int64_t kMostSequencesPerShard = std::int64_t{1} << 32;

std::size_t columns_per_layer(const CacheFormat& format) { return format.row_dtype == DType::kInt8 ? 5 : 3; }

/// Rows per chunk: about chunk_bytes of a layer's rows, evened out so that the last chunk is padded as little as
/// possible.
std::int64_t rows_per_chunk(const CacheFormat& format, std::int64_t rows) {
  const std::int64_t row_bytes = format.width * static_cast<std::int64_t>(bytes_per_element(format.row_dtype));
  const std::int64_t wanted = std::max<std::int64_t>(1, format.chunk_bytes / row_bytes);
  const std::int64_t chunks = std::max<std::int64_t>(1, (rows + wanted - 1) / wanted);
  return std::max<std::int64_t>(1, (rows + chunks - 1) / chunks);
}

/// Bytes of a shard file that are not chunks: measured on a file of the same datasets and chunk counts whose chunks
/// hold one element each.
std::uint64_t overhead_bytes(const CacheFormat& format, std::int64_t rows, std::int64_t chunks) {
  Hdf5Image image("size estimate");
  std::uint64_t data = 0;
  const std::byte element[8] = {};
  for (Hdf5Dataset dataset : shard_layout(format, rows)) {
    dataset.shape = dataset.shape.rank() == 2 ? Shape{chunks, 1} : Shape{chunks};
    dataset.chunk_rows = 1;
    image.create(dataset);
    for (std::int64_t i = 0; i < chunks; ++i) image.append_chunk({element, dataset.chunk_bytes()});
    data += static_cast<std::uint64_t>(chunks) * dataset.chunk_bytes();
  }
  return image.finish().bytes.bytes() - data;
}

std::uint64_t chunk_data_bytes(const CacheFormat& format, std::int64_t rows) {
  std::uint64_t bytes = 0;
  for (const Hdf5Dataset& dataset : shard_layout(format, rows)) {
    bytes += static_cast<std::uint64_t>(dataset.chunk_count()) * dataset.chunk_bytes();
  }
  return bytes;
}

std::int64_t chunk_count(const CacheFormat& format, std::int64_t rows) {
  return shard_layout(format, rows).front().chunk_count();
}
}  // namespace

void check_format(const CacheFormat& format) {
  if (format.layers.empty()) throw ConfigError("activation cache: no layers");
  if (format.layers.front() < 0 ||
      std::adjacent_find(format.layers.begin(), format.layers.end(), std::greater_equal<>()) != format.layers.end()) {
    throw ConfigError("activation cache: layers must be ascending, distinct and not negative");
  }
  const auto check = [](const char* what, std::int64_t value, std::int64_t most) {
    if (value < 1 || value > most) throw ConfigError("activation cache: {} is {}, allowed 1 to {}", what, value, most);
  };
  check("width", format.width, kLargestWidth);
  check("chunk_bytes", format.chunk_bytes, kLargestChunkBytes);
  check("sequences_per_shard", format.sequences_per_shard, kMostSequencesPerShard);
  const DType rows = format.row_dtype;
  if (rows != DType::kBFloat16 && rows != DType::kFloat32 && rows != DType::kInt8) {
    throw ConfigError("activation cache: rows cannot be {}; bfloat16, float32 or int8", name(rows));
  }
}

std::vector<Hdf5Dataset> shard_layout(const CacheFormat& format, std::int64_t rows) {
  const std::int64_t chunk_rows = rows_per_chunk(format, rows);
  std::vector<Hdf5Dataset> datasets;
  const auto add = [&](const std::string& dataset, DType dtype, Shape shape) {
    datasets.push_back({dataset, dtype, shape, chunk_rows});
  };
  for (const int layer : format.layers) {
    const std::string group = fmt::format("layers/{}/", layer);
    add(group + "mlp_in", format.row_dtype, {rows, format.width});
    add(group + "mlp_delta", format.row_dtype, {rows, format.width});
    add(group + "delta_square_norm", DType::kFloat64, {rows});
    if (format.row_dtype != DType::kInt8) continue;
    add(group + "mlp_in_scale", DType::kFloat32, {rows});
    add(group + "mlp_delta_scale", DType::kFloat32, {rows});
  }
  add("tokens/id", DType::kInt32, {rows});
  add("tokens/sequence", DType::kInt64, {rows});
  add("tokens/position", DType::kInt32, {rows});
  return datasets;
}

std::size_t dataset_index(const CacheFormat& format, std::size_t layer_index, LayerColumn column) {
  const std::size_t per_layer = columns_per_layer(format);
  const auto offset = static_cast<std::size_t>(column);
  require_shape(layer_index < format.layers.size() && offset < per_layer, "layer index {} column {} of {} layers",
                layer_index, offset, format.layers.size());
  return layer_index * per_layer + offset;
}

std::size_t dataset_index(const CacheFormat& format, TokenColumn column) {
  return format.layers.size() * columns_per_layer(format) + static_cast<std::size_t>(column);
}

std::uint64_t shard_file_bytes(const CacheFormat& format, std::int64_t rows) {
  check_format(format);
  return overhead_bytes(format, rows, chunk_count(format, rows)) + chunk_data_bytes(format, rows);
}

CacheSize cache_size(const CacheFormat& format, const std::vector<std::int64_t>& rows_per_shard) {
  check_format(format);
  // Texts are short beside the chunks: a generous bound on each number and name is enough.
  constexpr std::uint64_t kBytesPerChunk = 36, kBytesPerDataset = 256, kBytesPerText = 16384;
  std::map<std::int64_t, std::uint64_t> overheads;  // by number of chunks
  CacheSize size;
  size.listing_bytes = kBytesPerText;
  for (const std::int64_t rows : rows_per_shard) {
    const std::int64_t chunks = chunk_count(format, rows);
    const auto [overhead, is_new] = overheads.try_emplace(chunks, 0);
    if (is_new) overhead->second = overhead_bytes(format, rows, chunks);
    size.shard_bytes += overhead->second + chunk_data_bytes(format, rows);
    const std::uint64_t datasets = dataset_index(format, TokenColumn::kPosition) + 1;
    const auto chunk_texts = static_cast<std::uint64_t>(chunks) * kBytesPerChunk;
    // Once in the listing, once in the manifest.
    size.listing_bytes += 2 * datasets * (chunk_texts + kBytesPerDataset) + kBytesPerText;
  }
  return size;
}

std::string shard_file_name(std::int64_t index) { return fmt::format("shard-{:06}.h5", index); }
std::string listing_file_name(std::int64_t index) { return fmt::format("shard-{:06}.json", index); }

}  // namespace tadapt

// JSON of manifests and listings; what is read is checked against the layout that the format prescribes.
#include <algorithm>
#include <limits>

#include "data/activation_cache.h"
#include "data/file.h"
#include "data/json.h"
#include "data/json_field.h"
#include "kernels/core/error.h"

namespace tadapt {
namespace {
using nlohmann::json;

constexpr const char* kManifestKind = "tadapt activation cache";
constexpr const char* kListingKind = "tadapt activation cache shard";
constexpr std::int64_t kMostRows = std::int64_t{1} << 40;
constexpr std::size_t kMostShards = std::size_t{1} << 24;
constexpr std::int64_t kLargestChecksum = 0xffffffff;
constexpr std::int64_t kMostBytes = std::int64_t{1} << 52;

void expect(const JsonField& field, const std::string& text) {
  if (field.string() != text) field.expected(in_quotes(text));
}

Provenance parse_provenance(const JsonField& field) {
  Provenance texts;
  for (const auto& [key, value] : field.object()) {
    if (!value.is_string()) field.expected(fmt::format("a text for {}", in_quotes(key)));
    texts[key] = value.get<std::string>();
  }
  return texts;
}

std::vector<std::int64_t> sizes(const Shape& shape) {
  std::vector<std::int64_t> all;
  for (int i = 0; i < shape.rank(); ++i) all.push_back(shape[i]);
  return all;
}

json format_json(const CacheFormat& format) {
  return {{"layers", format.layers},
          {"width", format.width},
          {"row_dtype", name(format.row_dtype)},
          {"chunk_bytes", format.chunk_bytes},
          {"sequences_per_shard", format.sequences_per_shard}};
}

json dataset_json(const CacheDataset& dataset) {
  json offsets = json::array(), checksums = json::array();
  for (const CacheChunk& chunk : dataset.chunks) {
    offsets.push_back(chunk.offset);
    checksums.push_back(chunk.crc32c);
  }
  return {{"name", dataset.layout.name},          {"dtype", name(dataset.layout.dtype)},
          {"shape", sizes(dataset.layout.shape)}, {"chunk_bytes", dataset.layout.chunk_bytes()},
          {"chunk_offsets", std::move(offsets)},  {"chunk_crc32c", std::move(checksums)}};
}

json shard_json(const CacheShard& shard) {
  json datasets = json::array(), rounding = json::array();
  for (const CacheDataset& dataset : shard.datasets) datasets.push_back(dataset_json(dataset));
  for (const RoundingSums& sums : shard.rounding) {
    rounding.push_back({{"input_square", sums.input_square},
                        {"input_error_square", sums.input_error_square},
                        {"delta_square", sums.delta_square},
                        {"delta_error_square", sums.delta_error_square}});
  }
  return {{"file", shard_file_name(shard.index)},
          {"bytes", shard.bytes},
          {"crc32c", shard.crc32c},
          {"rows", shard.rows},
          {"chunk_rows", shard.datasets.front().layout.chunk_rows},
          {"first_sequence", shard.first_sequence},
          {"last_sequence", shard.last_sequence},
          {"datasets", std::move(datasets)},
          {"rounding", std::move(rounding)}};
}

json statistics_json(int layer, const CacheLayerStatistics& statistics) {
  return {{"layer", layer},
          {"scale_square", statistics.scale_square},
          {"largest_rows_share", statistics.largest_rows_share},
          {"first_position_share", statistics.first_position_share},
          {"input_rounding_error", statistics.input_rounding_error},
          {"delta_rounding_error", statistics.delta_rounding_error}};
}

CacheFormat parse_format(const JsonField& field) {
  constexpr std::int64_t kAny = std::numeric_limits<std::int64_t>::max();
  CacheFormat format;
  const JsonField layers = field["layers"];
  for (std::size_t i = 0; i < layers.array().size(); ++i) {
    format.layers.push_back(static_cast<int>(layers.at(i).integer(0, std::numeric_limits<int>::max())));
  }
  format.width = field["width"].integer(1, kAny);
  format.chunk_bytes = field["chunk_bytes"].integer(1, kAny);
  format.sequences_per_shard = field["sequences_per_shard"].integer(1, kAny);
  const std::string& dtype = field["row_dtype"].string();
  const DType all[] = {DType::kBFloat16, DType::kFloat32, DType::kInt8};
  const auto* found = std::find_if(std::begin(all), std::end(all), [&](DType type) { return dtype == name(type); });
  if (found == std::end(all)) field["row_dtype"].expected("bfloat16, float32 or int8");
  format.row_dtype = *found;
  try {
    check_format(format);
  } catch (const ConfigError& error) {
    throw DataError("{}: {}", field.place(), error.what());
  }
  return format;
}

/// The dataset that `layout` prescribes, with its chunks from the JSON.
CacheDataset parse_dataset(const JsonField& field, const Hdf5Dataset& layout, std::uint64_t file_bytes) {
  expect(field["name"], layout.name);
  expect(field["dtype"], name(layout.dtype));
  const std::vector<std::int64_t> expected_shape = sizes(layout.shape);
  const JsonField shape = field["shape"];
  if (shape.array().size() != expected_shape.size()) shape.expected(layout.shape.to_string());
  for (std::size_t i = 0; i < expected_shape.size(); ++i) shape.at(i).integer(expected_shape[i], expected_shape[i]);
  const auto bytes = static_cast<std::int64_t>(layout.chunk_bytes());
  field["chunk_bytes"].integer(bytes, bytes);
  const JsonField offsets = field["chunk_offsets"], checksums = field["chunk_crc32c"];
  const auto count = static_cast<std::size_t>(layout.chunk_count());
  for (const JsonField& list : {offsets, checksums}) {
    if (list.array().size() != count) list.expected(fmt::format("{} chunks", count));
  }
  CacheDataset dataset{layout, {}};
  for (std::size_t i = 0; i < count; ++i) {
    const std::int64_t last_offset = static_cast<std::int64_t>(file_bytes) - bytes;
    dataset.chunks.push_back({static_cast<std::uint64_t>(offsets.at(i).integer(0, last_offset)),
                              static_cast<std::uint32_t>(checksums.at(i).integer(0, kLargestChecksum))});
  }
  return dataset;
}

void check_chunks_apart(const JsonField& field, const CacheShard& shard) {
  std::vector<std::pair<std::uint64_t, std::uint64_t>> extents;
  for (const CacheDataset& dataset : shard.datasets) {
    for (const CacheChunk& chunk : dataset.chunks) {
      extents.emplace_back(chunk.offset, chunk.offset + dataset.layout.chunk_bytes());
    }
  }
  std::sort(extents.begin(), extents.end());
  for (std::size_t i = 1; i < extents.size(); ++i) {
    if (extents[i].first < extents[i - 1].second) {
      throw DataError("{}: two chunks overlap at offset {}", field.place(), extents[i].first);
    }
  }
}

void parse_sequences(const JsonField& field, const CacheFormat& format, CacheShard& shard) {
  const std::int64_t begin = shard.index * format.sequences_per_shard;
  const std::int64_t last = begin + format.sequences_per_shard - 1;
  const bool empty = shard.rows == 0;
  shard.first_sequence = field["first_sequence"].integer(empty ? -1 : begin, empty ? -1 : last);
  shard.last_sequence = field["last_sequence"].integer(shard.first_sequence, empty ? -1 : last);
}

void parse_rounding(const JsonField& field, std::size_t layers, CacheShard& shard) {
  if (field.array().size() != layers) field.expected(fmt::format("{} layers", layers));
  for (std::size_t i = 0; i < layers; ++i) {
    const JsonField sums = field.at(i);
    shard.rounding.push_back({sums["input_square"].amount(), sums["input_error_square"].amount(),
                              sums["delta_square"].amount(), sums["delta_error_square"].amount()});
  }
}

CacheShard parse_shard(const JsonField& field, const CacheFormat& format, std::int64_t index) {
  CacheShard shard;
  shard.index = index;
  expect(field["file"], shard_file_name(index));
  shard.bytes = static_cast<std::uint64_t>(field["bytes"].integer(0, kMostBytes));
  shard.crc32c = static_cast<std::uint32_t>(field["crc32c"].integer(0, kLargestChecksum));
  shard.rows = field["rows"].integer(0, kMostRows);
  parse_sequences(field, format, shard);
  const std::vector<Hdf5Dataset> layout = shard_layout(format, shard.rows);
  field["chunk_rows"].integer(layout.front().chunk_rows, layout.front().chunk_rows);
  const JsonField datasets = field["datasets"];
  if (datasets.array().size() != layout.size()) datasets.expected(fmt::format("{} datasets", layout.size()));
  for (std::size_t i = 0; i < layout.size(); ++i) {
    shard.datasets.push_back(parse_dataset(datasets.at(i), layout[i], shard.bytes));
  }
  check_chunks_apart(field, shard);
  parse_rounding(field["rounding"], format.layers.size(), shard);
  return shard;
}

CacheLayerStatistics parse_statistics(const JsonField& field, int layer) {
  field["layer"].integer(layer, layer);
  return {field["scale_square"].amount(), field["largest_rows_share"].amount(), field["first_position_share"].amount(),
          field["input_rounding_error"].amount(), field["delta_rounding_error"].amount()};
}

/// Of all keys but `crc32c` itself, as dump() writes them: line breaks and indentation do not matter.
std::uint32_t checksum(const json& whole) {
  const std::string text = whole.dump();
  return crc32c(std::as_bytes(std::span(text)));
}

std::string signed_text(json whole) {
  whole["crc32c"] = checksum(whole);
  return whole.dump() + "\n";
}

/// Checks kind, version and checksum; takes the checksum out of `whole`.
void check_document(json& whole, const char* kind, const std::filesystem::path& source) {
  const JsonField root(whole, source.string());
  expect(root["kind"], kind);
  const std::int64_t version = root["schema_version"].integer(0, std::numeric_limits<int>::max());
  if (version != kCacheSchemaVersion) {
    throw DataError("{}: schema version {}, this build reads version {}", source.string(), version,
                    kCacheSchemaVersion);
  }
  const std::int64_t expected = root["crc32c"].integer(0, kLargestChecksum);
  whole.erase("crc32c");
  if (const std::uint32_t found = checksum(whole); found != expected) {
    throw DataError("{}: damaged: CRC32C is {:08x}, {:08x} was written", source.string(), found, expected);
  }
}
}  // namespace

std::string to_json(const CacheManifest& manifest) {
  json layers = json::array(), shards = json::array();
  for (std::size_t i = 0; i < manifest.layers.size(); ++i) {
    layers.push_back(statistics_json(manifest.format.layers[i], manifest.layers[i]));
  }
  for (const CacheShard& shard : manifest.shards) shards.push_back(shard_json(shard));
  json whole{{"kind", kManifestKind},
             {"schema_version", kCacheSchemaVersion},
             {"format", format_json(manifest.format)},
             {"provenance", manifest.provenance},
             {"rows", manifest.rows},
             {"layers", std::move(layers)},
             {"shards", std::move(shards)}};
  return signed_text(std::move(whole));
}

std::string to_json(const CacheListing& listing) {
  json whole{{"kind", kListingKind},
             {"schema_version", kCacheSchemaVersion},
             {"format", format_json(listing.format)},
             {"provenance", listing.provenance},
             {"shard_index", listing.shard.index},
             {"shard", shard_json(listing.shard)}};
  return signed_text(std::move(whole));
}

CacheManifest parse_manifest(std::string_view text, const std::filesystem::path& source) {
  json whole = parse_json(text, source);
  check_document(whole, kManifestKind, source);
  const JsonField root(whole, source.string());
  CacheManifest manifest;
  manifest.format = parse_format(root["format"]);
  manifest.provenance = parse_provenance(root["provenance"]);
  const JsonField shards = root["shards"];
  if (shards.array().size() > kMostShards) shards.expected(fmt::format("at most {} shards", kMostShards));
  for (std::size_t i = 0; i < shards.array().size(); ++i) {
    manifest.shards.push_back(parse_shard(shards.at(i), manifest.format, static_cast<std::int64_t>(i)));
    manifest.shards.back().first_row = manifest.rows;
    manifest.rows += manifest.shards.back().rows;
    if (manifest.rows > kMostRows) shards.expected(fmt::format("at most {} rows", kMostRows));
  }
  root["rows"].integer(manifest.rows, manifest.rows);
  const JsonField layers = root["layers"];
  const std::vector<int>& numbers = manifest.format.layers;
  if (layers.array().size() != numbers.size()) layers.expected(fmt::format("{} layers", numbers.size()));
  for (std::size_t i = 0; i < numbers.size(); ++i) {
    manifest.layers.push_back(parse_statistics(layers.at(i), numbers[i]));
  }
  return manifest;
}

CacheListing parse_listing(std::string_view text, const std::filesystem::path& source) {
  json whole = parse_json(text, source);
  check_document(whole, kListingKind, source);
  const JsonField root(whole, source.string());
  CacheListing listing;
  listing.format = parse_format(root["format"]);
  listing.provenance = parse_provenance(root["provenance"]);
  const std::int64_t index = root["shard_index"].integer(0, static_cast<std::int64_t>(kMostShards));
  listing.shard = parse_shard(root["shard"], listing.format, index);
  return listing;
}

}  // namespace tadapt

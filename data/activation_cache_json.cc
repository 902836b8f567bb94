// JSON of manifests and listings; what is read is checked against the layout that the format prescribes.
#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

#include "data/activation_cache.h"
#include "data/file.h"
#include "data/json.h"
#include "kernels/core/error.h"

namespace tadapt {
namespace {
using nlohmann::json;

constexpr const char* kManifestKind = "tadapt activation cache";
constexpr const char* kListingKind = "tadapt activation cache shard";
constexpr std::int64_t kMostRows = std::int64_t{1} << 40;
constexpr std::int64_t kMostShards = std::int64_t{1} << 24;
constexpr std::int64_t kMostBytes = std::int64_t{1} << 52;

/// A JSON value with the way to it, for messages.
class Field {
 public:
  Field(const json& value, std::string where) : value_(&value), where_(std::move(where)) {}

  [[noreturn]] void fail(const std::string& problem) const { throw DataError("{}: {}", where_, problem); }

  Field at(const char* key) const {
    if (!value_->is_object()) fail("an object was expected");
    const auto found = value_->find(key);
    if (found == value_->end()) fail(fmt::format("'{}' is missing", key));
    return {*found, fmt::format("{}: {}", where_, key)};
  }
  std::vector<Field> items() const {
    if (!value_->is_array()) fail("a list was expected");
    std::vector<Field> fields;
    for (const json& item : *value_) fields.emplace_back(item, fmt::format("{}[{}]", where_, fields.size()));
    return fields;
  }
  std::int64_t integer(std::int64_t least, std::int64_t most) const {
    const bool fits = value_->is_number_unsigned() ? value_->get<std::uint64_t>() <= static_cast<std::uint64_t>(most)
                                                   : value_->is_number_integer() && value_->get<std::int64_t>() <= most;
    if (!fits || value_->get<std::int64_t>() < least) {
      fail(fmt::format("a whole number from {} to {} was expected", least, most));
    }
    return value_->get<std::int64_t>();
  }
  /// A finite number that is not negative.
  double amount() const {
    if (!value_->is_number()) fail("a number was expected");
    const double number = value_->get<double>();
    if (!std::isfinite(number) || number < 0) fail("a finite number of at least 0 was expected");
    return number;
  }
  std::string text() const {
    if (!value_->is_string()) fail("a text was expected");
    return value_->get<std::string>();
  }
  void expect(const std::string& expected) const {
    if (const std::string found = text(); found != expected) {
      fail(fmt::format("{} was expected, found {}", in_quotes(expected), in_quotes(found)));
    }
  }
  Provenance texts_by_name() const {
    if (!value_->is_object()) fail("an object was expected");
    Provenance texts;
    for (const auto& [key, value] : value_->items()) {
      texts[key] = Field(value, fmt::format("{}: {}", where_, in_quotes(key))).text();
    }
    return texts;
  }

 private:
  const json* value_;
  std::string where_;
};

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

CacheFormat parse_format(const Field& field) {
  constexpr std::int64_t kAny = std::numeric_limits<std::int64_t>::max();
  CacheFormat format;
  for (const Field& layer : field.at("layers").items()) {
    format.layers.push_back(static_cast<int>(layer.integer(0, std::numeric_limits<int>::max())));
  }
  format.width = field.at("width").integer(1, kAny);
  format.chunk_bytes = field.at("chunk_bytes").integer(1, kAny);
  format.sequences_per_shard = field.at("sequences_per_shard").integer(1, kAny);
  const std::string dtype = field.at("row_dtype").text();
  const DType all[] = {DType::kBFloat16, DType::kFloat32, DType::kInt8};
  const auto* found = std::find_if(std::begin(all), std::end(all), [&](DType type) { return dtype == name(type); });
  if (found == std::end(all)) field.at("row_dtype").fail(fmt::format("unknown type {}", in_quotes(dtype)));
  format.row_dtype = *found;
  try {
    check_format(format);
  } catch (const ConfigError& error) {
    field.fail(error.what());
  }
  return format;
}

/// The dataset that `layout` prescribes, with its chunks from the JSON.
CacheDataset parse_dataset(const Field& field, const Hdf5Dataset& layout, std::uint64_t file_bytes) {
  field.at("name").expect(layout.name);
  field.at("dtype").expect(name(layout.dtype));
  std::vector<std::int64_t> shape;
  for (const Field& size : field.at("shape").items()) shape.push_back(size.integer(0, kMostRows));
  if (shape != sizes(layout.shape)) {
    field.fail(fmt::format("{}: shape {} was expected", layout.name, layout.shape.to_string()));
  }
  const auto bytes = static_cast<std::int64_t>(layout.chunk_bytes());
  field.at("chunk_bytes").integer(bytes, bytes);
  const std::vector<Field> offsets = field.at("chunk_offsets").items();
  const std::vector<Field> checksums = field.at("chunk_crc32c").items();
  const auto count = static_cast<std::size_t>(layout.chunk_count());
  if (offsets.size() != count || checksums.size() != count) {
    field.fail(fmt::format("{}: {} chunks were expected, found {} offsets and {} checksums", layout.name, count,
                           offsets.size(), checksums.size()));
  }
  CacheDataset dataset{layout, {}};
  for (std::size_t i = 0; i < count; ++i) {
    const std::int64_t last_offset = static_cast<std::int64_t>(file_bytes) - bytes;
    dataset.chunks.push_back({static_cast<std::uint64_t>(offsets[i].integer(0, last_offset)),
                              static_cast<std::uint32_t>(checksums[i].integer(0, 0xffffffff))});
  }
  return dataset;
}

void check_chunks_apart(const Field& field, const CacheShard& shard) {
  std::vector<std::pair<std::uint64_t, std::uint64_t>> extents;
  for (const CacheDataset& dataset : shard.datasets) {
    for (const CacheChunk& chunk : dataset.chunks) {
      extents.emplace_back(chunk.offset, chunk.offset + dataset.layout.chunk_bytes());
    }
  }
  std::sort(extents.begin(), extents.end());
  for (std::size_t i = 1; i < extents.size(); ++i) {
    if (extents[i].first < extents[i - 1].second) {
      field.fail(fmt::format("two chunks overlap at offset {}", extents[i].first));
    }
  }
}

void parse_sequences(const Field& field, const CacheFormat& format, CacheShard& shard) {
  const std::int64_t begin = shard.index * format.sequences_per_shard;
  const std::int64_t last = begin + format.sequences_per_shard - 1;
  const bool empty = shard.rows == 0;
  shard.first_sequence = field.at("first_sequence").integer(empty ? -1 : begin, empty ? -1 : last);
  shard.last_sequence = field.at("last_sequence").integer(shard.first_sequence, empty ? -1 : last);
}

CacheShard parse_shard(const Field& field, const CacheFormat& format, std::int64_t index) {
  CacheShard shard;
  shard.index = index;
  field.at("file").expect(shard_file_name(index));
  shard.bytes = static_cast<std::uint64_t>(field.at("bytes").integer(0, kMostBytes));
  shard.crc32c = static_cast<std::uint32_t>(field.at("crc32c").integer(0, 0xffffffff));
  shard.rows = field.at("rows").integer(0, kMostRows);
  parse_sequences(field, format, shard);
  const std::vector<Hdf5Dataset> layout = shard_layout(format, shard.rows);
  field.at("chunk_rows").integer(layout.front().chunk_rows, layout.front().chunk_rows);
  const std::vector<Field> datasets = field.at("datasets").items();
  if (datasets.size() != layout.size()) {
    field.fail(fmt::format("{} datasets were expected, found {}", layout.size(), datasets.size()));
  }
  for (std::size_t i = 0; i < layout.size(); ++i) {
    shard.datasets.push_back(parse_dataset(datasets[i], layout[i], shard.bytes));
  }
  check_chunks_apart(field, shard);
  for (const Field& sums : field.at("rounding").items()) {
    shard.rounding.push_back({sums.at("input_square").amount(), sums.at("input_error_square").amount(),
                              sums.at("delta_square").amount(), sums.at("delta_error_square").amount()});
  }
  if (shard.rounding.size() != format.layers.size()) field.fail("'rounding' does not fit the layers");
  return shard;
}

CacheLayerStatistics parse_statistics(const Field& field, int layer) {
  field.at("layer").integer(layer, layer);
  return {field.at("scale_square").amount(), field.at("largest_rows_share").amount(),
          field.at("first_position_share").amount(), field.at("input_rounding_error").amount(),
          field.at("delta_rounding_error").amount()};
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

/// Takes the checksum out of `whole`.
void check_signature(json& whole, const std::filesystem::path& source) {
  const std::int64_t expected = Field(whole, source.string()).at("crc32c").integer(0, 0xffffffff);
  whole.erase("crc32c");
  if (const std::uint32_t found = checksum(whole); found != expected) {
    throw DataError("{}: damaged: CRC32C is {:08x}, {:08x} was written", source.string(), found, expected);
  }
}

void check_kind(const Field& field, const char* kind) {
  field.at("kind").expect(kind);
  const std::int64_t version = field.at("schema_version").integer(0, std::numeric_limits<int>::max());
  if (version != kCacheSchemaVersion) {
    field.fail(fmt::format("schema version {}, this build reads version {}", version, kCacheSchemaVersion));
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
  const Field root(whole, source.string());
  check_kind(root, kManifestKind);
  check_signature(whole, source);
  CacheManifest manifest;
  manifest.format = parse_format(root.at("format"));
  manifest.provenance = root.at("provenance").texts_by_name();
  for (const Field& shard : root.at("shards").items()) {
    const auto index = static_cast<std::int64_t>(manifest.shards.size());
    if (index >= kMostShards) shard.fail("too many shards");
    manifest.shards.push_back(parse_shard(shard, manifest.format, index));
    manifest.shards.back().first_row = manifest.rows;
    manifest.rows += manifest.shards.back().rows;
    if (manifest.rows > kMostRows) shard.fail("too many rows");
  }
  root.at("rows").integer(manifest.rows, manifest.rows);
  const std::vector<Field> layers = root.at("layers").items();
  if (layers.size() != manifest.format.layers.size()) root.fail("'layers' does not fit the format");
  for (std::size_t i = 0; i < layers.size(); ++i) {
    manifest.layers.push_back(parse_statistics(layers[i], manifest.format.layers[i]));
  }
  return manifest;
}

CacheListing parse_listing(std::string_view text, const std::filesystem::path& source) {
  json whole = parse_json(text, source);
  const Field root(whole, source.string());
  check_kind(root, kListingKind);
  check_signature(whole, source);
  CacheListing listing;
  listing.format = parse_format(root.at("format"));
  listing.provenance = root.at("provenance").texts_by_name();
  listing.shard = parse_shard(root.at("shard"), listing.format, root.at("shard_index").integer(0, kMostShards));
  return listing;
}

}  // namespace tadapt

// What an activation cache is on disk: shards of rows, the listing of each, and the manifest over all of them.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "data/hdf5.h"
#include "kernels/core/tensor.h"

namespace tadapt {

inline constexpr int kCacheSchemaVersion = 1;
inline constexpr const char* kManifestFile = "manifest.json";
/// Of chunk_bytes; HDF5 takes less than 4 GiB, also of a chunk of 8-byte columns.
inline constexpr std::int64_t kLargestChunkBytes = std::int64_t{1} << 27;

/// What decides the layout of every shard.
struct CacheFormat {
  std::vector<int> layers;                 ///< ascending, distinct
  std::int64_t width = 0;                  ///< D
  DType row_dtype = DType::kBFloat16;      ///< bfloat16, float32, or int8 with one float32 scale per row
  std::int64_t chunk_bytes = 4 << 20;      ///< size aimed at for a chunk of rows
  std::int64_t sequences_per_shard = 256;  ///< shard i holds kept rows of sequences [i·S, (i+1)·S)

  friend bool operator==(const CacheFormat&, const CacheFormat&) = default;
};

/// Throws ConfigError naming the value that cannot be.
void check_format(const CacheFormat& format);

/// The datasets of one layer, `layers/{ℓ}/…`; the scales exist in int8 caches only.
enum class LayerColumn { kInput, kDelta, kDeltaSquareNorm, kInputScale, kDeltaScale };
/// The datasets `tokens/…`: int32 id, int64 sequence, int32 position; all [N].
enum class TokenColumn { kId, kSequence, kPosition };

/// The datasets of a shard of `rows` rows, in file order: per layer mlp_in [N,D], mlp_delta [N,D], delta_square_norm
/// [N] float64 (‖Δ‖² of the float32 Δ, before rounding), for int8 mlp_in_scale and mlp_delta_scale [N] float32; then
/// the tokens. All have the same chunk_rows, so chunk i covers the same rows in each.
std::vector<Hdf5Dataset> shard_layout(const CacheFormat& format, std::int64_t rows);
/// Positions in shard_layout(); `layer_index` counts in format.layers.
std::size_t dataset_index(const CacheFormat& format, std::size_t layer_index, LayerColumn column);
std::size_t dataset_index(const CacheFormat& format, TokenColumn column);

/// Exact size of a shard file of `rows` rows, known before any of it is computed.
std::uint64_t shard_file_bytes(const CacheFormat& format, std::int64_t rows);

struct CacheSize {
  std::uint64_t shard_bytes = 0;    ///< all shard files, exact
  std::uint64_t listing_bytes = 0;  ///< listings and manifest, an upper bound
};
/// Size of a whole cache from the rows of each of its shards.
CacheSize cache_size(const CacheFormat& format, const std::vector<std::int64_t>& rows_per_shard);

/// Where the rows come from: model, tokenizer and corpus fingerprints and capture options, by name. No clocks, hosts
/// or paths, so that equal captures give equal files.
using Provenance = std::map<std::string, std::string>;

struct CacheChunk {
  std::uint64_t offset = 0;  ///< in the shard file
  std::uint32_t crc32c = 0;
};

struct CacheDataset {
  Hdf5Dataset layout;
  std::vector<CacheChunk> chunks;
};

/// Sums over rows from which the error added by the row format follows.
struct RoundingSums {
  double input_square = 0, input_error_square = 0;
  double delta_square = 0, delta_error_square = 0;
};

struct CacheShard {
  std::int64_t index = 0;
  std::int64_t rows = 0;
  std::int64_t first_row = 0;        ///< number of its first row in the whole cache (known in a manifest)
  std::int64_t first_sequence = -1;  ///< of its first row; -1 when it has none
  std::int64_t last_sequence = -1;
  std::uint64_t bytes = 0;             ///< size of the file
  std::uint32_t crc32c = 0;            ///< of the whole file
  std::vector<CacheDataset> datasets;  ///< as shard_layout()
  std::vector<RoundingSums> rounding;  ///< per layer
};

/// "shard-000012.h5" and "shard-000012.json".
std::string shard_file_name(std::int64_t index);
std::string listing_file_name(std::int64_t index);

struct CacheLayerStatistics {
  double scale_square = 0;          ///< s_ℓ²: mean ‖Δ‖² over the first min(N, 65536) rows
  double largest_rows_share = 0;    ///< share of Σ‖Δ‖² in the largest 0.1 % of rows
  double first_position_share = 0;  ///< share of Σ‖Δ‖² at position 0
  double input_rounding_error = 0;  ///< sqrt(Σ‖x − stored x‖² / Σ‖x‖²)
  double delta_rounding_error = 0;  ///< the same of Δ
};

struct CacheManifest {
  CacheFormat format;
  Provenance provenance;
  std::int64_t rows = 0;
  std::vector<CacheLayerStatistics> layers;  ///< one per format.layers
  std::vector<CacheShard> shards;            ///< in order; first_row filled in
};

/// What shard-000012.json says: enough to know, after a restart, whether the shard beside it is whole and wanted.
struct CacheListing {
  CacheFormat format;
  Provenance provenance;
  CacheShard shard;
};

/// JSON texts; equal values give equal bytes.
std::string to_json(const CacheManifest& manifest);
std::string to_json(const CacheListing& listing);
/// The reverse, from text nobody vouches for: everything that is returned is consistent (layout as shard_layout() says,
/// chunks inside the file and apart, sequences in order, numbers finite). DataError naming `source` and the field.
CacheManifest parse_manifest(std::string_view text, const std::filesystem::path& source);
CacheListing parse_listing(std::string_view text, const std::filesystem::path& source);

}  // namespace tadapt

// Small activation caches whose every number is known.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <vector>

#include "data/activation_cache_writer.h"
#include "data/activation_shard.h"
#include "kernels/core/random.h"

namespace tadapt::testing {

/// x or Δ of one element: a function of its place in the cache alone. Position 0 of a sequence is 10 times as large.
inline float example_value(int layer, RowKind kind, std::int64_t row, std::int64_t column, std::int32_t position);

/// A cache of `sequence_rows.size()` sequences with so many kept rows each.
class ExampleCache {
 public:
  ExampleCache(CacheFormat format, std::vector<std::int64_t> sequence_rows);

  std::int64_t rows() const { return static_cast<std::int64_t>(sequences_.size()); }
  std::int64_t shard_count() const;
  std::int64_t shard_begin(std::int64_t shard) const;  ///< first row
  const CacheFormat& format() const { return format_; }
  std::int64_t sequence(std::int64_t row) const { return sequences_[static_cast<std::size_t>(row)]; }
  std::int32_t position(std::int64_t row) const { return positions_[static_cast<std::size_t>(row)]; }
  std::int32_t id(std::int64_t row) const { return static_cast<std::int32_t>(row * 7 % 1000); }
  float value(int layer, RowKind kind, std::int64_t row, std::int64_t column) const {
    return example_value(layer, kind, row, column, position(row));
  }
  /// The value as a reader hands it out: rounded to the row format, then exact.
  float stored_value(int layer, RowKind kind, std::int64_t row, std::int64_t column) const;

  CacheWriterOptions options(const std::filesystem::path& directory) const;
  void write_shard(ActivationCacheWriter& writer, std::int64_t shard) const;
  /// All shards and the manifest.
  CacheManifest write(FileSystem& files, const std::filesystem::path& directory) const;

 private:
  CacheFormat format_;
  std::vector<std::int64_t> sequences_;  // per row
  std::vector<std::int32_t> positions_;  // per row
  std::int64_t sequence_count_;
};

/// Element of a tensor of float32 or bfloat16.
inline float element(const Tensor& tensor, std::int64_t row, std::int64_t column);

inline float example_value(int layer, RowKind kind, std::int64_t row, std::int64_t column, std::int32_t position) {
  const RandomStream stream(static_cast<std::uint64_t>(layer * 2) + (kind == RowKind::kDelta ? 1u : 0u),
                            RandomPurpose::kTest, static_cast<std::uint64_t>(column), static_cast<std::uint64_t>(row));
  const float scale = (position == 0 ? 10.0f : 1.0f) * static_cast<float>(layer + 1);
  return (stream.uniform(0) - 0.5f) * scale;
}

inline ExampleCache::ExampleCache(CacheFormat format, std::vector<std::int64_t> sequence_rows)
    : format_(std::move(format)), sequence_count_(static_cast<std::int64_t>(sequence_rows.size())) {
  for (std::size_t s = 0; s < sequence_rows.size(); ++s) {
    for (std::int64_t i = 0; i < sequence_rows[s]; ++i) {
      sequences_.push_back(static_cast<std::int64_t>(s));
      positions_.push_back(static_cast<std::int32_t>(2 * i));  // as if every other token were dropped
    }
  }
}

inline std::int64_t ExampleCache::shard_count() const {
  return (sequence_count_ + format_.sequences_per_shard - 1) / format_.sequences_per_shard;
}

inline std::int64_t ExampleCache::shard_begin(std::int64_t shard) const {
  return std::lower_bound(sequences_.begin(), sequences_.end(), shard * format_.sequences_per_shard) -
         sequences_.begin();
}

inline float ExampleCache::stored_value(int layer, RowKind kind, std::int64_t row, std::int64_t column) const {
  const float exact = value(layer, kind, row, column);
  if (format_.row_dtype == DType::kFloat32) return exact;
  if (format_.row_dtype == DType::kBFloat16) return round_to_bfloat16(exact);
  float largest = 0;
  for (std::int64_t d = 0; d < format_.width; ++d) largest = std::max(largest, std::abs(value(layer, kind, row, d)));
  const float scale = largest / 127.0f;
  return scale * static_cast<float>(std::nearbyint(static_cast<double>(exact) / static_cast<double>(scale)));
}

inline CacheWriterOptions ExampleCache::options(const std::filesystem::path& directory) const {
  return {directory, format_, shard_count(), {{"base", "b0"}, {"target", "t1"}, {"tokens_per_sequence", "0"}}};
}

inline void ExampleCache::write_shard(ActivationCacheWriter& writer, std::int64_t shard) const {
  const std::int64_t begin = shard_begin(shard), end = shard_begin(shard + 1);
  const auto count = static_cast<std::size_t>(end - begin);
  std::vector<std::int32_t> ids;
  for (std::int64_t row = begin; row < end; ++row) ids.push_back(id(row));
  ShardRows rows{ids,
                 std::span(sequences_).subspan(static_cast<std::size_t>(begin), count),
                 std::span(positions_).subspan(static_cast<std::size_t>(begin), count),
                 {}};
  std::vector<std::vector<float>> memory;
  for (const int layer : format_.layers) {
    for (const RowKind kind : {RowKind::kInput, RowKind::kDelta}) {
      std::vector<float>& values = memory.emplace_back();
      for (std::int64_t row = begin; row < end; ++row) {
        for (std::int64_t d = 0; d < format_.width; ++d) values.push_back(value(layer, kind, row, d));
      }
    }
  }
  const Shape shape{end - begin, format_.width};
  for (std::size_t i = 0; i < memory.size(); i += 2) {
    rows.layers.push_back({Tensor::of(std::span(memory[i]), shape), Tensor::of(std::span(memory[i + 1]), shape)});
  }
  writer.write_shard(shard, rows);
}

inline CacheManifest ExampleCache::write(FileSystem& files, const std::filesystem::path& directory) const {
  ActivationCacheWriter writer(files, options(directory));
  for (std::int64_t shard = 0; shard < shard_count(); ++shard) write_shard(writer, shard);
  return writer.finalize();
}

inline float element(const Tensor& tensor, std::int64_t row, std::int64_t column) {
  const auto index = static_cast<std::size_t>(row * tensor.size(1) + column);
  if (tensor.dtype() == DType::kBFloat16) return static_cast<float>(tensor.span<bfloat16>()[index]);
  return tensor.span<float>()[index];
}

}  // namespace tadapt::testing

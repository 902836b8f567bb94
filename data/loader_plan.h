// Which rows of which chunks one rank needs for a run of samples, and where in its batches they go.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "data/activation_cache.h"
#include "data/row_order.h"

namespace tadapt {

/// Batch k of a run is samples [first_sample + k·B, first_sample + (k + 1)·B), B = batch_rows over all ranks; this
/// rank's part of it is the samples at places [slice_begin, slice_end).
struct BatchSlice {
  std::int64_t batch_rows = 0;
  std::int64_t slice_begin = 0;
  std::int64_t slice_end = 0;
  std::int64_t first_sample = 0;

  std::int64_t rows() const { return slice_end - slice_begin; }
  std::int64_t batch(std::int64_t sample) const { return (sample - first_sample) / batch_rows; }
  /// Row within this rank's part, or something outside [0, rows()) for a sample of another rank.
  std::int64_t place(std::int64_t sample) const { return (sample - first_sample) % batch_rows - slice_begin; }
  bool holds(std::int64_t sample) const { return place(sample) >= 0 && place(sample) < rows(); }
};

struct SampleRow {
  std::int64_t row = 0;  ///< in the whole cache
  std::int64_t sample = 0;
};

/// Rows [begin, end) of BlockPlan::rows all lie in this chunk.
struct ChunkRows {
  std::size_t shard = 0;
  std::int64_t chunk = 0;
  std::size_t begin = 0, end = 0;
};

/// What a rank reads for samples [begin, end).
struct BlockPlan {
  std::int64_t begin = 0, end = 0;
  std::vector<SampleRow> rows;    ///< this rank's, ascending by row
  std::vector<ChunkRows> chunks;  ///< the same rows by chunk
};

/// The block of samples that starts at `begin` (DataOrder::block_end).
BlockPlan plan_block(const std::vector<CacheShard>& shards, const DataOrder& order, const BatchSlice& slice,
                     std::int64_t begin);

}  // namespace tadapt

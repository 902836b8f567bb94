// CapturePlan: everything a capture will do, known before any model runs.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "data/activation_cache.h"
#include "runtime/capture/row_choice.h"
#include "runtime/model/decoder.h"

namespace tadapt {

struct CaptureRequest {
  const DecoderConfig& target;
  std::span<const std::int64_t> lengths;  ///< tokens of each sequence of the corpus
  CacheFormat format;
  RowChoice rows;
  DType compute = DType::kBFloat16;  ///< of the models
};

/// Kept rows [begin, end) of a sequence, counted within it.
struct SequenceRows {
  std::int64_t sequence = 0;
  std::int64_t begin = 0, end = 0;
};

/// A pure function of its request, so that every rank has the same.
struct CapturePlan {
  struct Sequence {
    std::int64_t rows = 0;    ///< kept
    std::int64_t tokens = 0;  ///< run: none behind the last row kept, since attention is causal
  };

  CacheFormat format;
  RowChoice choice;
  std::vector<Sequence> sequences;           ///< those before the end of max_tokens; later ones are not needed
  std::vector<std::int64_t> rows_per_shard;  ///< shard i: rows of sequences [i·S, (i+1)·S)
  std::int64_t rows = 0;
  std::int64_t tokens = 0;
  CacheSize size;                        ///< on disk
  std::uint64_t shard_memory_bytes = 0;  ///< a rank's host memory for the largest shard, beside the models
  std::uint64_t model_memory_bytes = 0;  ///< a rank's, for the models
  double flops = 0;                      ///< target's forward up to the last layer asked for, and the base MLPs

  std::int64_t shards() const { return static_cast<std::int64_t>(rows_per_shard.size()); }
  /// All kept rows of a shard's sequences.
  std::vector<SequenceRows> rows_of_shard(std::int64_t shard) const;
  /// The positions kept of one of `sequences`, given its length in the corpus.
  std::vector<std::int32_t> positions(std::int64_t sequence, std::int64_t length) const;
};

/// ConfigError when the format cannot be, an option is negative, a layer is not the model's, a needed sequence is
/// longer than the model's positions (naming both), or no row would be kept.
CapturePlan plan_capture(const CaptureRequest& request);

}  // namespace tadapt

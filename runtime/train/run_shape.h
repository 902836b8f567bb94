// The sizes of a run: rows, steps, grid; known before anything is allocated, also for --dry-run.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "data/activation_cache.h"
#include "data/activation_loader.h"
#include "runtime/capture/capture_plan.h"
#include "runtime/comm/process_grid.h"
#include "runtime/plan/estimate.h"
#include "runtime/train/row_pieces.h"
#include "runtime/train/run_options.h"

namespace tadapt {

/// Of a run, or of several that are trained side by side.
struct RunShape {
  std::vector<int> layers;                 ///< trained, ascending
  std::int64_t width = 0;                  ///< D
  std::vector<std::int64_t> dictionaries;  ///< F of each of the runs
  DType row_dtype = DType::kBFloat16;      ///< of x and Δ, as cached
  std::int64_t train_rows = 0;             ///< N, an epoch: all shards but the held-out ones
  std::int64_t shards = 0;
  std::int64_t held_out_shards = 0;  ///< the last ones
  std::int64_t held_out_rows = 0;    ///< looked at per evaluation; they follow the training rows
  std::int64_t steps = 0;
  std::int64_t model_bytes = 0;      ///< of the frozen models, where they make the rows while training; else 0
  std::int64_t most_batch_rows = 0;  ///< that they make together then
};

/// For format.layers, from the rows of each shard of a cache that exists or is planned. The last cache.held_out_shards
/// shards are held out, but never all of them. ConfigError when no row is left to train on.
RunShape run_shape(const RunOptions& options, const CacheFormat& format,
                   const std::vector<std::int64_t>& rows_per_shard);
std::vector<std::int64_t> rows_per_shard(const CacheManifest& manifest);
/// The same from the plan of what will be captured, or streamed.
RunShape run_shape(const RunOptions& options, const CapturePlan& plan);

/// ConfigError naming the key when rows cannot be streamed in the order asked for.
void require_servable_order(const RunOptions& options);

/// ConfigError when a leaf has more activations than active pairs can be counted.
void require_countable_leaves(const RunOptions& options);

/// The grid asked for, or the cheapest one; ConfigError naming the nearest usable rank counts when there is none.
ProcessGrid run_grid(const RunOptions& options, const RunShape& shape, int ranks);

/// Bytes of a parameter that are held in host memory while a checkpoint is written beside training, or its moments come
/// from several ranks.
std::int64_t held_for_checkpoint(const RunOptions& options);

/// Memory of the rank with most layers while training.
MemoryEstimate run_memory(const RunOptions& options, const RunShape& shape, const ProcessGrid& grid);

DataOrder data_order(const RunOptions& options, const RunShape& shape);
LoaderOptions loader_options(const RunOptions& options, const ProcessGrid& grid, int rank, std::int64_t first_step);

/// The held-out rows, a leaf at a time.
RowPieces held_out_pieces(const RunOptions& options, const RunShape& shape);

/// Σ F over the runs.
std::int64_t all_features(const RunShape& shape);

/// One line when fewer shards are held out than were asked for; empty otherwise.
std::string held_out_warning(const RunOptions& options, const RunShape& shape);

/// Layers, steps, grid, memory and disk in a few lines.
std::string describe(const RunOptions& options, const RunShape& shape, const ProcessGrid& grid);

/// 16 hexadecimal digits of a manifest: which cache a checkpoint was trained on.
std::string manifest_hash(const CacheManifest& manifest);

}  // namespace tadapt

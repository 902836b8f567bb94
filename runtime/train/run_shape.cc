#include "runtime/train/run_shape.h"

#include <xxhash.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "kernels/core/host_memory.h"
#include "kernels/sparse.h"
#include "runtime/capture/activation_stream.h"
#include "runtime/plan/grid_cost.h"

namespace tadapt {
namespace {

constexpr int kReadingThreads = 2;
constexpr std::int64_t kMostSamples = std::int64_t{1} << 60;

/// train.steps, or those of train.epochs. ConfigError when samples could not be counted in 64 bits.
std::int64_t step_count(const RunOptions& options, std::int64_t train_rows) {
  const auto batch_tokens = static_cast<double>(options.train.batch_tokens);
  const double steps = options.train.steps > 0
                           ? static_cast<double>(options.train.steps)
                           : std::round(options.train.epochs * static_cast<double>(train_rows) / batch_tokens);
  if (steps > static_cast<double>(kMostSamples) / batch_tokens)
    throw ConfigError("{}: {} steps of {} tokens each; at most 2^60 tokens can be counted",
                      options.train.steps > 0 ? "train.steps" : "train.epochs", steps, options.train.batch_tokens);
  return std::max<std::int64_t>(1, static_cast<std::int64_t>(steps));
}

/// Host memory of what hands out the rows: windows, and where rows are streamed the rows under way and those held out.
std::uint64_t source_bytes(const RunOptions& options, const RunShape& shape, const ProcessGrid& grid) {
  const CacheFormat format{.layers = shape.layers, .width = shape.width, .row_dtype = shape.row_dtype};
  const LoaderOptions loader = loader_options(options, grid, 0, 0);
  const DataOrder order = data_order(options, shape);
  if (options.cache.source == RowSource::kDisk) return loader_memory_bytes(format, order, loader);
  const std::int64_t kept = held_out_pieces(options, shape).most_rows_of_one(grid.data_parallel());
  return stream_memory_bytes(format, loader.layers.size(), order, loader.slice) +
         feed_memory_bytes(format, shape.most_batch_rows) + KeptRows::memory_bytes(format, loader.layers.size(), kept);
}

}  // namespace

void require_countable_leaves(const RunOptions& options) {
  const std::int64_t leaf_tokens = options.train.batch_tokens / options.train.reduction_leaves;
  const std::int64_t features = options.adapter.features;
  if (options.adapter.sparse_below == 0.0 || leaf_tokens <= kMostPairs / features) return;
  throw ConfigError(
      "train.reduction_leaves {}: a leaf of {} tokens and {} features has more than {} activations, the most that the "
      "sparse route counts; use more leaves, or adapter.sparse_below: 0",
      options.train.reduction_leaves, leaf_tokens, features, kMostPairs);
}

RunShape run_shape(const RunOptions& options, const CacheFormat& format,
                   const std::vector<std::int64_t>& rows_per_shard) {
  RunShape shape{.layers = format.layers,
                 .width = format.width,
                 .dictionaries = {options.adapter.features},
                 .row_dtype = format.row_dtype};
  shape.shards = static_cast<std::int64_t>(rows_per_shard.size());
  shape.held_out_shards = std::min(options.cache.held_out_shards, std::max<std::int64_t>(0, shape.shards - 1));
  const auto border = rows_per_shard.end() - shape.held_out_shards;
  shape.train_rows = std::accumulate(rows_per_shard.begin(), border, std::int64_t{0});
  shape.held_out_rows =
      std::min(options.train.held_out_tokens, std::accumulate(border, rows_per_shard.end(), std::int64_t{0}));
  if (shape.train_rows == 0)
    throw ConfigError("cache.held_out_shards: of {} shards, no row is left to train on", shape.shards);
  shape.steps = step_count(options, shape.train_rows);
  require_countable_leaves(options);
  return shape;
}

RunShape run_shape(const RunOptions& options, const CapturePlan& plan) {
  RunShape shape = run_shape(options, plan.format, plan.rows_per_shard);
  if (options.cache.source == RowSource::kStream) {
    shape.model_bytes = static_cast<std::int64_t>(plan.model_memory_bytes);
    shape.most_batch_rows = most_batch_rows(plan);
  }
  return shape;
}

void require_servable_order(const RunOptions& options) {
  if (options.cache.source == RowSource::kStream && options.train.order == RowOrder::kGlobal)
    throw ConfigError(
        "train.order: global needs every row at hand, which cache.source: stream does not have; use train.order: "
        "window "
        "or cache.source: disk");
}

std::vector<std::int64_t> rows_per_shard(const CacheManifest& manifest) {
  std::vector<std::int64_t> rows;
  for (const CacheShard& shard : manifest.shards) rows.push_back(shard.rows);
  return rows;
}

std::int64_t all_features(const RunShape& shape) {
  return std::accumulate(shape.dictionaries.begin(), shape.dictionaries.end(), std::int64_t{0});
}

std::string held_out_warning(const RunOptions& options, const RunShape& shape) {
  if (shape.held_out_shards >= options.cache.held_out_shards) return {};
  const std::string asked =
      fmt::format("WARNING: cache.held_out_shards is {}, but the cache has {} shard{}, of which one must be trained on",
                  options.cache.held_out_shards, shape.shards, shape.shards == 1 ? "" : "s");
  return shape.held_out_shards == 0
             ? asked + ": nothing is held out, and there will be no held-out metrics; see cache.sequences_per_shard"
             : fmt::format("{}: the last {} are held out", asked, shape.held_out_shards);
}

ProcessGrid run_grid(const RunOptions& options, const RunShape& shape, int ranks) {
  const GridShape chosen = choose_grid({.ranks = ranks,
                                        .layers = static_cast<int>(shape.layers.size()),
                                        .leaves = options.train.reduction_leaves,
                                        .layer_blocks = options.grid.layer_blocks,
                                        .data_parallel = options.grid.data_parallel},
                                       {.layers = static_cast<int>(shape.layers.size()),
                                        .width = shape.width,
                                        .features = all_features(shape),
                                        .batch_tokens = options.train.batch_tokens},
                                       MachineRates{});
  return ProcessGrid(chosen, shape.layers);
}

std::int64_t held_for_checkpoint(const RunOptions& options) {
  constexpr std::int64_t kMaster = 4, kMoments = 8;
  if (options.checkpoint.asynchronous == Asynchronous::kOn) return kMaster + kMoments;
  return options.optim.shard_state == ShardState::kOn ? kMoments : 0;
}

MemoryEstimate run_memory(const RunOptions& options, const RunShape& shape, const ProcessGrid& grid) {
  const auto estimate_of = [&](std::int64_t features) {
    return estimate_memory({.width = shape.width,
                            .features = features,
                            .layers_in_block = static_cast<int>(grid.layers_of_block(0).size()),
                            .data_parallel = grid.data_parallel(),
                            .state_shards = options.optim.shard_state == ShardState::kOn ? grid.data_parallel() : 1,
                            .writers = grid.data_parallel(),
                            .held_for_checkpoint = held_for_checkpoint(options),
                            .leaves = options.train.reduction_leaves,
                            .batch_tokens = options.train.batch_tokens,
                            .loader_bytes = static_cast<std::int64_t>(source_bytes(options, shape, grid)),
                            .compute = options.train.compute});
  };
  MemoryEstimate estimate = estimate_of(*std::ranges::max_element(shape.dictionaries));
  estimate.master = estimate.moments = estimate.gradients = estimate.working_copy = estimate.held = 0;
  for (const std::int64_t features : shape.dictionaries) {
    const MemoryEstimate one = estimate_of(features);
    estimate.master += one.master;
    estimate.moments += one.moments;
    estimate.gradients += one.gradients;
    estimate.working_copy += one.working_copy;
    estimate.held += one.held;
  }
  estimate.frozen_weights = shape.model_bytes;
  return estimate;
}

DataOrder data_order(const RunOptions& options, const RunShape& shape) {
  return options.train.order == RowOrder::kGlobal
             ? DataOrder::global(shape.train_rows, options.train.seed)
             : DataOrder::window(shape.train_rows, options.train.window_tokens, options.train.seed);
}

LoaderOptions loader_options(const RunOptions& options, const ProcessGrid& grid, int rank, std::int64_t first_step) {
  const std::int64_t share = options.train.batch_tokens / grid.data_parallel();
  const std::int64_t place = grid.index_of(rank);
  return {.layers = grid.layers_of_block(grid.block_of(rank)),
          .slice = {.batch_rows = options.train.batch_tokens,
                    .slice_begin = place * share,
                    .slice_end = (place + 1) * share,
                    .first_sample = first_step * options.train.batch_tokens},
          .threads = kReadingThreads};
}

RowPieces held_out_pieces(const RunOptions& options, const RunShape& shape) {
  return {.begin = shape.train_rows,
          .end = shape.train_rows + shape.held_out_rows,
          .piece_rows = options.train.batch_tokens / options.train.reduction_leaves};
}

std::string describe(const RunOptions& options, const RunShape& shape, const ProcessGrid& grid) {
  const auto layers = static_cast<std::int64_t>(shape.layers.size());
  std::int64_t checkpoints = 0, parameters = 0;
  for (const std::int64_t features : shape.dictionaries) {
    checkpoints += checkpoint_bytes(static_cast<int>(layers), shape.width, features);
    parameters += layers * transcoder_parameters(shape.width, features);
  }
  const std::string adapters = shape.dictionaries.size() == 1
                                   ? fmt::format("{} features each", shape.dictionaries.front())
                                   : fmt::format("{} runs side by side with {} features in all of each layer",
                                                 shape.dictionaries.size(), all_features(shape));
  const double epochs =
      static_cast<double>(shape.steps * options.train.batch_tokens) / static_cast<double>(shape.train_rows);
  const MemoryEstimate memory = run_memory(options, shape, grid);
  return fmt::format(
      "train: {} layers of width {}, {}, {} trainable parameters\n"
      "train: {} steps of {} tokens = {:.2f} epochs of {} rows, {} rows held out\n"
      "train: {} rank{}: {}\n"
      "train: memory per rank: {}\n"
      "train: checkpoints: {} each, {} at most on disk{}",
      layers, shape.width, adapters, parameters, shape.steps, options.train.batch_tokens, epochs, shape.train_rows,
      shape.held_out_rows, grid.ranks(), grid.ranks() == 1 ? "" : "s", grid.shape().to_string(), memory.to_string(),
      readable_bytes(checkpoints), readable_bytes(checkpoints_on_disk_bytes(checkpoints, options.checkpoint.keep)),
      memory_warning("training", memory.total(), host_memory_bytes()));
}

std::string manifest_hash(const CacheManifest& manifest) {
  const std::string text = to_json(manifest);
  return fmt::format("{:016x}", XXH3_64bits(text.data(), text.size()));
}

}  // namespace tadapt

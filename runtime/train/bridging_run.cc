#include "runtime/train/bridging_run.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>
#include <optional>

#include "data/model_files.h"
#include "kernels/core/host_memory.h"
#include "runtime/adapter/break_even.h"
#include "runtime/comm/device_group.h"
#include "runtime/train/agreement.h"
#include "runtime/train/bridging_options.h"
#include "runtime/train/bridging_step.h"
#include "runtime/train/device_choice.h"
#include "runtime/train/grid_link.h"
#include "runtime/train/prepare_cache.h"
#include "runtime/train/run_shape.h"
#include "runtime/train/run_state.h"

namespace tadapt {
namespace {

void require_positions_of(const DecoderConfig& config, const TokenDataset& corpus) {
  for (std::int64_t i = 0; i < corpus.size(); ++i)
    require_positions(config, i, static_cast<std::int64_t>(corpus.sequence(i).ids.size()));
}

std::int64_t step_count(const TrainOptions& options, std::int64_t sequences) {
  if (options.steps > 0) return options.steps;
  const double steps =
      std::round(options.epochs * static_cast<double>(sequences) / static_cast<double>(options.batch_sequences));
  if (steps > 0x1p60 / static_cast<double>(options.batch_sequences))
    throw ConfigError("train.epochs: {} steps of {} sequences each; at most 2^60 sequences can be counted", steps,
                      options.batch_sequences);
  return std::max<std::int64_t>(1, static_cast<std::int64_t>(steps));
}

/// The frozen models of a run.
struct Models {
  Decoder pair;
  std::optional<Decoder> trunk;
};

/// The layers that this rank runs, of both.
Models load_models(const RunOptions& options, const RunEnvironment& environment, LayerSpan layers) {
  environment.heartbeat("loading models");
  Decoder pair = Decoder::load_pair(environment.context, environment.files, options.model.target, options.model.base,
                                    {options.model.compute, Directions::kBoth, layers});
  std::optional<Decoder> trunk;
  if (options.loss.backbone == Backbone::kBase)
    trunk.emplace(pair.load_base(environment.context, environment.files, options.model.base));
  return {std::move(pair), std::move(trunk)};
}

nlohmann::json provenance(const RunOptions& options, const Context& context, const BridgingShape& shape,
                          const TokenDataset& corpus) {
  nlohmann::json facts = common_provenance(options, context, shape.steps);
  facts["base"] = model_fingerprint(options.model.base);
  facts["target"] = model_fingerprint(options.model.target);
  facts["corpus"] = fmt::format("{:016x}", corpus.fingerprint());
  return facts;
}

}  // namespace

BridgingShape bridging_shape(const RunOptions& options, FileSystem& files, const TokenDataset& corpus,
                             const TokenDataset* held_out) {
  BridgingShape shape{.target = load_decoder_config(files, options.model.target)};
  const DecoderConfig base = load_decoder_config(files, options.model.base);
  require_same_mlp_shapes(base, shape.target);
  if (options.loss.backbone == Backbone::kBase)
    if (const auto refusal = base_row_refusal(base, shape.target))
      throw ConfigError("loss.backbone: base: {}", *refusal);
  shape.layers = parse_layers(options.layers, shape.target.layers);
  cutoffs_of_step(options, shape.target.layers, 0);  // fixed ones may be out of range
  shape.leaves = sequence_leaves(options.train);
  const SequenceBatches batches(corpus, options.train.seed, options.train.batch_sequences, shape.leaves);
  shape.sequences = corpus.size();
  shape.leaf_tokens = batches.most_leaf_tokens();
  shape.steps = step_count(options.train, corpus.size());
  for (const TokenDataset* each : {&corpus, held_out}) {
    if (each == nullptr) continue;
    require_positions_of(shape.target, *each);
    for (std::int64_t i = 0; i < each->size(); ++i)
      shape.leaf_tokens = std::max(shape.leaf_tokens, static_cast<std::int64_t>(each->sequence(i).ids.size()));
    if (options.loss.backbone == Backbone::kBase) require_positions_of(base, *each);
  }
  return shape;
}

namespace {

/// What each trained layer's block takes of a leaf's step, in floating-point operations per token: its own passes (the
/// target's, the adapter model's two, and two of each bridge that has left by then), those of the untrained layers that
/// belong to its block, and for the last one the head of every branch. `bridges`: of each kind, their cutoffs uniform.
std::vector<double> layer_costs(const BridgingShape& shape, std::int64_t features, int bridges) {
  const int layers = shape.target.layers;
  const ForwardFlops flops = forward_flops(shape.target);
  const double model = flops.attention_per_token + flops.mlp_per_token +
                       flops.attention_per_context * static_cast<double>(shape.leaf_tokens) / 2.0;
  const double adapter = 4.0 * static_cast<double>(shape.target.width) * static_cast<double>(features);
  std::vector<double> costs;
  for (int layer = 0; layer < layers; ++layer) {
    const bool trained = std::ranges::find(shape.layers, layer) != shape.layers.end();
    const double begun = bridges * static_cast<double>(layer + 1) / (layers + 1);
    const double passes = 3.0 + 4.0 * begun;
    const double cost = passes * model + (trained ? 3.0 * (1.0 + begun) * adapter : 0.0);
    const bool opens = trained && layer != shape.layers.front();
    if (costs.empty() || opens)
      costs.push_back(cost);
    else
      costs.back() += cost;
  }
  costs.back() += (2.0 + 2.0 * (1.0 + 2.0 * bridges)) * flops.head_per_token;
  return costs;
}

/// A step's time in that of a leaf on one rank. Leaves go through the blocks one behind the other, as fast as the
/// dearest one. Of two ranks that share the branches the adapter model's has 2L + Σ_k 2(L − k) of 3L + Σ_k 4(L − k)
/// layer passes; L/2 is the mean k.
double relative_step_time(GridShape shape, const BridgingShape& run, const std::vector<double>& costs, int bridges) {
  const ProcessGrid grid(shape, run.layers, costs);
  double dearest = 0.0, all = 0.0;
  auto next = costs.begin();
  for (int block = 0; block < grid.blocks(); ++block) {
    const auto end = next + static_cast<std::ptrdiff_t>(grid.layers_of_block(block).size());
    const double cost = std::accumulate(next, end, 0.0);
    dearest = std::max(dearest, cost);
    all += cost;
    next = end;
  }
  const double slower_side = shape.branch_parallel > 1 ? (2.0 + bridges) / (3.0 + 2.0 * bridges) : 1.0;
  const std::int64_t own_leaves = run.leaves / shape.data_parallel;
  return (static_cast<double>(own_leaves - 1) * dearest / all + 1.0) * slower_side;
}

}  // namespace

ProcessGrid bridging_grid(const RunOptions& options, const BridgingShape& shape, int ranks) {
  const int bridges = most_bridges(options.loss, shape.target.layers);
  const std::vector<double> costs = layer_costs(shape, options.adapter.features, bridges);
  const GridShape chosen = choose_grid({.ranks = ranks,
                                        .layers = static_cast<int>(shape.layers.size()),
                                        .leaves = shape.leaves,
                                        .layer_blocks = options.grid.layer_blocks,
                                        .data_parallel = options.grid.data_parallel,
                                        .branch_parallel = options.grid.branch_parallel},
                                       [&](GridShape one) { return relative_step_time(one, shape, costs, bridges); });
  return ProcessGrid(chosen, shape.layers, costs);
}

namespace {

struct RankOn {
  int rank;
  Device device;
};

MemoryEstimate memory_of_rank(const RunOptions& options, const BridgingShape& shape, const ProcessGrid& grid,
                              RankOn on) {
  const AdapterShape adapter{shape.target.width, options.adapter.features};
  const BridgingPart part = part_of_rank(grid, on.rank, shape.target.layers);
  const auto trained = static_cast<std::int64_t>(grid.layers_of_block(grid.block_of(on.rank)).size());
  const std::int64_t own_leaves = shape.leaves / grid.data_parallel();
  MemoryEstimate estimate =
      estimate_memory({.width = shape.target.width,
                       .features = options.adapter.features,
                       .layers_in_block = static_cast<int>(trained),
                       .data_parallel = grid.data_parallel(),
                       .state_shards = options.optim.shard_state == ShardState::kOn ? grid.group_size() : 1,
                       .writers = grid.group_size(),
                       .held_for_checkpoint = held_for_checkpoint(options),
                       .leaves = shape.leaves,
                       .compute = options.train.compute});
  DecoderConfig of_rank = shape.target;
  of_rank.layers = part.layers.count();
  const int trunks = options.loss.backbone == Backbone::kBase ? 2 : 1;
  estimate.frozen_weights =
      static_cast<std::int64_t>(frozen_memory_bytes(of_rank, options.model.compute, on.device, trunks));
  estimate.leaf_buffers =
      trained * leaf_joiner_bytes(transcoder_parameters(adapter.model_width, adapter.features), own_leaves);
  const BridgingMemory memory{.leaf_tokens = shape.leaf_tokens,
                              .cutoffs = most_bridges(options.loss, shape.target.layers),
                              .recording = recording_of(options.train.recompute),
                              .logits_budget_bytes = options.train.logits_bytes};
  const std::int64_t logits =
      2 * (shape.target.vocabulary + shape.target.width) * shape.leaf_tokens * static_cast<std::int64_t>(sizeof(float));
  const std::int64_t tape = AdapterTape::bytes(adapter, options.adapter.sparse_below.value_or(0.0), trained,
                                               tape_limits(options, memory, part));
  const std::int64_t under_way = grid.blocks() > 1 ? own_leaves : 1;
  estimate.batch = under_way * (BridgingPass::bytes(shape.target, memory, part) + tape) +
                   std::min(memory.logits_budget_bytes, logits);
  return estimate;
}

}  // namespace

MemoryEstimate bridging_memory(const RunOptions& options, const BridgingShape& shape, const ProcessGrid& grid,
                               Device device) {
  MemoryEstimate most = memory_of_rank(options, shape, grid, {0, device});
  for (int rank = 1; rank < grid.ranks(); ++rank) {
    const MemoryEstimate one = memory_of_rank(options, shape, grid, {rank, device});
    if (one.total() > most.total()) most = one;
  }
  return most;
}

std::string describe(const RunOptions& options, const BridgingShape& shape, const ProcessGrid& grid, Device device) {
  const std::int64_t checkpoint =
      checkpoint_bytes(static_cast<int>(shape.layers.size()), shape.target.width, options.adapter.features);
  const BridgingWeights weights = bridging_weights(options.loss);
  const MemoryEstimate memory = bridging_memory(options, shape, grid, device);
  return fmt::format(
      "train: bridging: {} layers of width {}, {} features each, {} trainable parameters\n"
      "train: {} steps of {} sequences = {:.2f} epochs of {}; {} leaves of up to {} tokens\n"
      "train: loss: {} KL adapter + {} (KL a2r + KL r2a) + {} NMSE ({} over states) + {} sparsity{}; {}\n"
      "train: {} rank{}: {}\n"
      "train: memory per rank: {}\n"
      "train: checkpoints: {} each, {} at most on disk{}",
      shape.layers.size(), shape.target.width, options.adapter.features,
      static_cast<std::int64_t>(shape.layers.size()) *
          transcoder_parameters(shape.target.width, options.adapter.features),
      shape.steps, options.train.batch_sequences,
      static_cast<double>(shape.steps * options.train.batch_sequences) / static_cast<double>(shape.sequences),
      shape.sequences, shape.leaves, shape.leaf_tokens, weights.kl_adapter, weights.kl_bridge, weights.residual_nmse,
      weights.nmse_over_states == OverStates::kMean ? "mean" : "sum", weights.sparsity,
      weights.label > 0 ? fmt::format(" + {} label", weights.label) : "",
      options.loss.fixed_cutoffs.empty() ? fmt::format("{} cutoffs a step", options.loss.cutoffs)
                                         : "cutoffs " + options.loss.fixed_cutoffs,
      grid.ranks(), grid.ranks() == 1 ? "" : "s", grid.shape().to_string(), memory.to_string(),
      readable_bytes(checkpoint), readable_bytes(checkpoints_on_disk_bytes(checkpoint, options.checkpoint.keep)),
      device == Device::kCpu ? memory_warning("training", memory.total(), host_memory_bytes()) : "");
}

TrainingOutcome run_bridging_training(const RunOptions& options, const RunEnvironment& environment,
                                      const TrainingOutcome& before) {
  std::optional<TokenDataset> corpus, held_out;
  BridgingShape shape;
  std::optional<ProcessGrid> grid;
  const int sharing = ranks_on_device(environment.context, environment.world);
  agree(environment.world, [&] {
    corpus.emplace(load_corpus(options, options.corpus.train, environment));
    if (!options.corpus.validation.empty() && options.train.held_out_tokens > 0)
      held_out.emplace(load_corpus(options, options.corpus.validation, environment));
    shape = bridging_shape(options, environment.files, *corpus, held_out ? &*held_out : nullptr);
    grid.emplace(bridging_grid(options, shape, environment.world.size()));
    const MemoryEstimate needed = bridging_memory(options, shape, *grid, environment.context.device());
    require_device_memory(environment.context, sharing, needed.on_device(), needed.to_string());
  });
  environment.print(describe(options, shape, *grid, environment.context.device()));
  const int rank = environment.world.rank(), block = grid->block_of(rank);
  std::optional<Models> models;
  agree(environment.world, [&] {
    models.emplace(load_models(options, environment, part_of_rank(*grid, rank, shape.target.layers).layers));
  });

  GridLink link(environment.context, environment.world, *grid);
  const DeviceGroup group =
      make_device_group(environment.world.split(block, rank, "data-parallel groups"), environment.context,
                        options.grid.sum_order, options.grid.timeout_seconds);
  environment.print(fmt::format("train: on {}, gradients summed {}", arithmetic_of(environment.context), group.how));
  TrainingState state = make_training_state({.runs = {&options},
                                             .layers = grid->layers_of_block(block),
                                             .losses = {},
                                             .width = shape.target.width,
                                             .gradients = AdapterGradients::kInputs},
                                            environment, *group.communicator);
  Checkpointer checkpointer(environment.context, environment.files, environment.world, *group.communicator,
                            {.run_dir = options.dir,
                             .keep = options.checkpoint.keep,
                             .samples_per_step = options.train.batch_sequences,
                             .samples_per_epoch = shape.sequences,
                             .provenance = provenance(options, environment.context, shape, *corpus)});
  const std::int64_t first_step = start_training_state({options, before}, 0, environment, checkpointer, state);
  if (first_step > 0) environment.print(fmt::format("resumed from step {} of {}", first_step, shape.steps));

  const SequenceBatches batches(*corpus, options.train.seed, options.train.batch_sequences, shape.leaves);
  const BridgingModels frozen{models->pair, models->trunk ? &*models->trunk : nullptr};
  const std::unique_ptr<MetricsLog> log = open_metrics_log(options, environment, first_step);
  BridgingStep step({.group = *group.communicator,
                     .link = grid->blocks() * grid->branch_parallel() > 1 ? &link : nullptr,
                     .grid = *grid,
                     .options = options,
                     .state = state,
                     .models = frozen,
                     .batches = batches,
                     .leaf_tokens = shape.leaf_tokens,
                     .held_out = held_out ? &*held_out : nullptr,
                     .environment = environment},
                    shape.steps);
  Trainer trainer({.options = options,
                   .environment = environment,
                   .state = state,
                   .step = step,
                   .outputs = {{checkpointer, log.get()}}},
                  shape.steps);
  return trainer.run(first_step);
}

}  // namespace tadapt

#include "runtime/train/train_run.h"

#include <cmath>
#include <memory>
#include <optional>

#include "kernels/core/memory.h"
#include "kernels/matmul.h"
#include "runtime/adapter/break_even.h"
#include "runtime/comm/device_group.h"
#include "runtime/loss/loss.h"
#include "runtime/plan/estimate.h"
#include "runtime/plan/grid_cost.h"
#include "runtime/train/agreement.h"
#include "runtime/train/device_choice.h"
#include "runtime/train/option_table.h"
#include "runtime/train/prepare_cache.h"
#include "runtime/train/run_directory.h"
#include "runtime/train/run_shape.h"
#include "runtime/train/state_shards.h"

namespace tadapt {
namespace {

/// s of a layer; a layer whose MLP fine-tuning did not change has nothing to learn.
double delta_scale(const CacheManifest& manifest, std::size_t place) {
  const double square = manifest.layers.at(place).scale_square;
  if (square > 0.0) return std::sqrt(square);
  throw ConfigError(
      "layer {}: base and target MLP give the same output on every cached row; leave it out of run.layers",
      manifest.format.layers[place]);
}

std::vector<LocalLoss> losses_of(const RunOptions& options, const ActivationCacheReader& cache,
                                 const std::vector<int>& layers) {
  std::vector<LocalLoss> losses;
  for (const int layer : layers) {
    const double scale = delta_scale(cache.manifest(), cache.layer_index(layer));
    const bool relative = options.loss.sparsity_scale == SparsityScale::kRelative;
    losses.push_back({.delta_scale = scale,
                      .sparsity = relative ? options.loss.sparsity / scale : options.loss.sparsity,
                      .batch_tokens = options.train.batch_tokens});
  }
  return losses;
}

std::vector<Trainee> make_trainees(const RunOptions& options, const RunEnvironment& environment,
                                   const ProcessGrid& grid, const std::vector<LocalLoss>& losses, std::int64_t width) {
  const AdapterShape shape{width, options.adapter.features};
  const AdapterCompute compute{options.train.compute, options.adapter.sparse_below.value_or(break_even(
                                                          environment.context.device(), shape, options.train.compute))};
  std::vector<Trainee> trainees;
  for (const int layer : grid.layers_of_block(grid.block_of(environment.world.rank()))) {
    const auto place = static_cast<std::size_t>(std::ranges::find(grid.layers(), layer) - grid.layers().begin());
    trainees.push_back(
        {.name = trainee_name(layer),
         .layer = layer,
         .seed = options.train.seed,
         .loss = losses[place],
         .adapter = make_adapter(options.adapter.type, shape, compute),
         .tokens_since_active = std::vector<std::int64_t>(static_cast<std::size_t>(options.adapter.features), 0)});
  }
  return trainees;
}

std::vector<ParameterGroupSpec> group_specs(const std::vector<Trainee>& trainees) {
  std::vector<ParameterGroupSpec> specs;
  for (const Trainee& trainee : trainees) specs.push_back(trainee.adapter->parameters(trainee.name));
  return specs;
}

constexpr char kTotalSteps[] = "steps";

nlohmann::json provenance(const RunOptions& options, const Context& context, const RunShape& shape,
                          const ActivationCacheReader& cache) {
  nlohmann::json layer_scales = nlohmann::json::object();
  for (const int layer : shape.layers)
    layer_scales[std::to_string(layer)] = cache.manifest().layers[cache.layer_index(layer)].scale_square;
  return {{"config", config_json(options)},
          {"config_hash", config_hash(options)},
          {kTotalSteps, shape.steps},
          {"base", cache.manifest().provenance.at("base")},
          {"target", cache.manifest().provenance.at("target")},
          {"cache", manifest_hash(cache.manifest())},
          {"delta_scale_square", layer_scales},
          {"adapter_type", options.adapter.type},
          {"seed", options.train.seed},
          {"arithmetic", arithmetic_of(context)},
          {"versions", {{"tadapt", TADAPT_VERSION}, {"products", product_library(context.device())}}}};
}

/// Where the run stands by its newest checkpoint, without looking at models, corpus or cache.
TrainingOutcome outcome_so_far(const RunOptions& options, const RunEnvironment& environment) {
  TrainingOutcome outcome;
  const auto newest = newest_checkpoint(environment.files, environment.world, options.dir, environment.print);
  if (newest.empty()) return outcome;
  outcome.checkpoint = newest.string();
  agree(environment.world, [&] {
    const CheckpointInfo checkpoint = open_checkpoint(environment.files, newest);
    outcome.step = checkpoint.step;
    outcome.finished = checkpoint.state.value(kTotalSteps, std::int64_t{-1}) == checkpoint.step;
  });
  return outcome;
}

/// What a run stands on before anything is trained.
struct Ground {
  std::unique_ptr<ActivationCacheReader> cache;
  RunShape shape;
  std::vector<LocalLoss> losses;  ///< by layer, as shape.layers
  std::unique_ptr<ProcessGrid> grid;
};

/// Captures the cache when there is none, and says what the run will be. Nothing when a stop was asked for meanwhile.
std::optional<Ground> prepare_ground(const RunOptions& options, const RunEnvironment& environment) {
  CaptureIdentity wanted;
  Ground ground;
  agree(environment.world, [&] {
    wanted = cache_identity(options, environment.files);
    const RunShape layers{.layers = wanted.format.layers, .width = wanted.format.width};
    ground.grid = std::make_unique<ProcessGrid>(run_grid(options, layers, environment.world.size()));
  });
  const int sharing = ranks_on_device(environment.context, environment.world);
  const auto require_memory = [&](const RunShape& shape) {
    const MemoryEstimate needed = run_memory(options, shape, *ground.grid);
    require_device_memory(environment.context, sharing, needed.on_device(), needed.to_string());
  };
  // What is wrong with the run is said before anything is captured for it.
  const auto approve = [&](const CapturePlan& plan) {
    require_memory(run_shape(options, plan.format, plan.rows_per_shard));
  };
  if (prepare_cache(options, environment, wanted, approve) == CaptureOutcome::kStopped) return std::nullopt;

  agree(environment.world, [&] {
    ground.cache = std::make_unique<ActivationCacheReader>(environment.files, wanted.directory);
    ground.shape = run_shape(options, wanted.format, rows_per_shard(ground.cache->manifest()));
    ground.losses = losses_of(options, *ground.cache, ground.shape.layers);
    require_memory(ground.shape);
  });
  if (const std::string warning = held_out_warning(options, ground.shape); !warning.empty()) environment.print(warning);
  environment.print(describe(options, ground.shape, *ground.grid));
  return ground;
}

}  // namespace

TrainingOutcome run_training(const RunOptions& options, const RunEnvironment& environment) {
  require_cached_source(find_objective(options.train.objective));
  std::unique_ptr<FileLock> lock;
  on_rank_zero(environment.world, [&] {
    lock = open_run_directory(environment.files, options, environment.who);
    return std::string();
  });
  const TrainingOutcome before = outcome_so_far(options, environment);
  if (before.finished) {
    environment.print(fmt::format("already finished: {} steps", before.step));
    return before;
  }
  const std::optional<Ground> ground = prepare_ground(options, environment);
  if (!ground) return before;
  const auto& [cache, shape, losses, grid] = *ground;

  const int rank = environment.world.rank();
  const DeviceGroup group =
      make_device_group(environment.world.split(grid->block_of(rank), rank, "data-parallel groups"),
                        environment.context, options.grid.sum_order, options.grid.timeout_seconds);
  environment.print(fmt::format("train: on {}, gradients summed {}", arithmetic_of(environment.context), group.how));
  std::vector<Trainee> trainees = make_trainees(options, environment, *grid, losses, shape.width);
  ParameterStore store(environment.context.device(), group_specs(trainees));
  AdamWState optimiser(environment.context.device(), store,
                       state_parts(options.optim.shard_state, store, *group.communicator));
  Checkpointer checkpointer(environment.context, environment.files, environment.world, *group.communicator,
                            {.run_dir = options.dir,
                             .keep = options.checkpoint.keep,
                             .batch_tokens = options.train.batch_tokens,
                             .train_rows = shape.train_rows,
                             .provenance = provenance(options, environment.context, shape, *cache)});
  for (std::size_t i = 0; i < trainees.size(); ++i)
    trainees[i].adapter->initialise(environment.context, store.master_views(i), trainees[i].seed, trainees[i].layer);
  std::int64_t first_step = 0;
  if (!before.checkpoint.empty()) {
    first_step = checkpointer.restore(before.checkpoint, trainees, store, optimiser, environment.print);
    environment.print(fmt::format("resumed from step {} of {}", first_step, shape.steps));
  }

  LoaderOptions loading = loader_options(options, *grid, rank, first_step);
  loading.device = environment.context.device();
  ActivationLoader loader(*cache, data_order(options, shape), loading);
  HeldOut held_out(*cache, environment.world, *grid, {shape.train_rows, shape.train_rows + shape.held_out_rows},
                   options.train.batch_tokens / options.train.reduction_leaves);
  std::unique_ptr<MetricsLog> log;
  agree(environment.world, [&] {
    if (rank == 0)
      log = std::make_unique<MetricsLog>(environment.files, options.dir, first_step, options.log.metrics_every_steps);
  });
  if (log != nullptr && log->missing_steps() > 0)
    environment.print(fmt::format("WARNING: metrics.jsonl lacks the lines of {} of the steps before {}; they stay lost",
                                  log->missing_steps(), first_step + 1));
  Trainer trainer({.group = *group.communicator,
                   .grid = *grid,
                   .options = options,
                   .losses = losses,
                   .trainees = trainees,
                   .store = store,
                   .optimiser = optimiser,
                   .loader = loader,
                   .held_out = held_out,
                   .checkpointer = checkpointer,
                   .log = log.get(),
                   .environment = environment},
                  shape.steps);
  return trainer.run(first_step);
}

}  // namespace tadapt

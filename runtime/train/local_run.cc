#include "runtime/train/local_run.h"

#include <cmath>
#include <memory>
#include <optional>

#include "runtime/comm/device_group.h"
#include "runtime/plan/estimate.h"
#include "runtime/plan/grid_cost.h"
#include "runtime/train/agreement.h"
#include "runtime/train/device_choice.h"
#include "runtime/train/local_step.h"
#include "runtime/train/prepare_cache.h"
#include "runtime/train/run_shape.h"
#include "runtime/train/run_state.h"

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
    const bool relative = options.loss.sparsity_scale != SparsityScale::kAbsolute;
    losses.push_back({.delta_scale = scale,
                      .sparsity = relative ? options.loss.sparsity / scale : options.loss.sparsity,
                      .batch_tokens = options.train.batch_tokens});
  }
  return losses;
}

nlohmann::json provenance(const RunOptions& options, const Context& context, const RunShape& shape,
                          const ActivationCacheReader& cache) {
  nlohmann::json layer_scales = nlohmann::json::object();
  for (const int layer : shape.layers)
    layer_scales[std::to_string(layer)] = cache.manifest().layers[cache.layer_index(layer)].scale_square;
  nlohmann::json facts = common_provenance(options, context, shape.steps);
  facts["base"] = cache.manifest().provenance.at("base");
  facts["target"] = cache.manifest().provenance.at("target");
  facts["cache"] = manifest_hash(cache.manifest());
  facts["delta_scale_square"] = layer_scales;
  return facts;
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

TrainingOutcome run_local_training(const RunOptions& options, const RunEnvironment& environment,
                                   const TrainingOutcome& before) {
  const std::optional<Ground> ground = prepare_ground(options, environment);
  if (!ground) return before;
  const auto& [cache, shape, losses, grid] = *ground;

  const int rank = environment.world.rank();
  const DeviceGroup group =
      make_device_group(environment.world.split(grid->block_of(rank), rank, "data-parallel groups"),
                        environment.context, options.grid.sum_order, options.grid.timeout_seconds);
  environment.print(fmt::format("train: on {}, gradients summed {}", arithmetic_of(environment.context), group.how));
  TraineeRequest request{.layers = grid->layers_of_block(grid->block_of(rank)), .losses = {}, .width = shape.width};
  for (const int layer : request.layers)
    request.losses.push_back(
        losses[static_cast<std::size_t>(std::ranges::find(grid->layers(), layer) - grid->layers().begin())]);
  TrainingState state = make_training_state(options, environment, *group.communicator, request);
  Checkpointer checkpointer(environment.context, environment.files, environment.world, *group.communicator,
                            {.run_dir = options.dir,
                             .keep = options.checkpoint.keep,
                             .samples_per_step = options.train.batch_tokens,
                             .samples_per_epoch = shape.train_rows,
                             .provenance = provenance(options, environment.context, shape, *cache)});
  const std::int64_t first_step = start_training_state(options, environment, checkpointer, before.checkpoint, state);
  if (first_step > 0) environment.print(fmt::format("resumed from step {} of {}", first_step, shape.steps));

  LoaderOptions loading = loader_options(options, *grid, rank, first_step);
  loading.device = environment.context.device();
  ActivationLoader loader(*cache, data_order(options, shape), loading);
  HeldOut held_out(*cache, environment.world, *grid, {shape.train_rows, shape.train_rows + shape.held_out_rows},
                   options.train.batch_tokens / options.train.reduction_leaves);
  const std::unique_ptr<MetricsLog> log = open_metrics_log(options, environment, first_step);
  LocalStep step({.group = *group.communicator,
                  .grid = *grid,
                  .options = options,
                  .losses = losses,
                  .state = state,
                  .loader = loader,
                  .held_out = held_out,
                  .environment = environment},
                 shape.steps);
  Trainer trainer({.options = options,
                   .environment = environment,
                   .state = state,
                   .step = step,
                   .checkpointer = checkpointer,
                   .log = log.get()},
                  shape.steps);
  return trainer.run(first_step);
}

}  // namespace tadapt

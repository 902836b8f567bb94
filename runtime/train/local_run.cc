#include "runtime/train/local_run.h"

#include <cmath>
#include <memory>

#include "runtime/comm/device_group.h"
#include "runtime/plan/estimate.h"
#include "runtime/plan/grid_cost.h"
#include "runtime/train/agreement.h"
#include "runtime/train/device_choice.h"
#include "runtime/train/local_step.h"
#include "runtime/train/prepare_cache.h"
#include "runtime/train/run_shape.h"
#include "runtime/train/run_state.h"
#include "runtime/train/training_rows.h"

namespace tadapt {
namespace {

/// s of a layer; a layer whose MLP fine-tuning did not change has nothing to learn.
double delta_scale(double square, int layer) {
  if (square > 0.0) return std::sqrt(square);
  throw ConfigError(
      "layer {}: base and target MLP give the same output on every cached row; leave it out of run.layers", layer);
}

std::vector<LocalLoss> losses_of(const RunOptions& options, const TrainingRows& rows) {
  std::vector<LocalLoss> losses;
  for (std::size_t i = 0; i < rows.shape().layers.size(); ++i) {
    const double scale = delta_scale(rows.scale_squares()[i], rows.shape().layers[i]);
    const bool relative = options.loss.sparsity_scale != SparsityScale::kAbsolute;
    losses.push_back({.delta_scale = scale,
                      .sparsity = relative ? options.loss.sparsity / scale : options.loss.sparsity,
                      .batch_tokens = options.train.batch_tokens});
  }
  return losses;
}

nlohmann::json provenance(const RunOptions& options, const Context& context, const TrainingRows& rows) {
  const RunShape& shape = rows.shape();
  nlohmann::json layer_scales = nlohmann::json::object();
  for (std::size_t i = 0; i < shape.layers.size(); ++i)
    layer_scales[std::to_string(shape.layers[i])] = rows.scale_squares()[i];
  nlohmann::json facts = common_provenance(options, context, shape.steps);
  facts["base"] = rows.provenance().at("base");
  facts["target"] = rows.provenance().at("target");
  facts["cache"] = rows.hash();
  facts["delta_scale_square"] = layer_scales;
  return facts;
}

/// What a run stands on before anything is trained.
struct Ground {
  CaptureIdentity identity;
  std::unique_ptr<ProcessGrid> grid;
  std::unique_ptr<TrainingRows> rows;
  std::vector<LocalLoss> losses;  ///< by layer, as the rows' shape has them
};

/// Makes the rows ready, and says what the run will be. Null when a stop was asked for meanwhile.
std::unique_ptr<Ground> prepare_ground(const RunOptions& options, const RunEnvironment& environment) {
  auto ground = std::make_unique<Ground>();
  agree(environment.world, [&] {
    require_servable_order(options);
    ground->identity = cache_identity(options, environment.files);
    const CacheFormat& format = ground->identity.format;
    const RunShape layers{.layers = format.layers, .width = format.width};
    ground->grid = std::make_unique<ProcessGrid>(run_grid(options, layers, environment.world.size()));
  });
  const int sharing = ranks_on_device(environment.context, environment.world);
  const auto require_memory = [&](const RunShape& shape) {
    const MemoryEstimate needed = run_memory(options, shape, *ground->grid);
    require_device_memory(environment.context, sharing, needed.on_device(), needed.to_string());
  };
  ground->rows = prepare_training_rows(
      {.options = options, .environment = environment, .identity = ground->identity, .grid = *ground->grid},
      require_memory);
  if (!ground->rows) return nullptr;
  const RunShape& shape = ground->rows->shape();
  agree(environment.world, [&] { ground->losses = losses_of(options, *ground->rows); });
  if (const std::string warning = held_out_warning(options, shape); !warning.empty()) environment.print(warning);
  environment.print(describe(options, shape, *ground->grid));
  return ground;
}

}  // namespace

TrainingOutcome run_local_training(const RunOptions& options, const RunEnvironment& environment,
                                   const TrainingOutcome& before) {
  const std::unique_ptr<Ground> ground = prepare_ground(options, environment);
  if (!ground) return before;
  const auto& [identity, grid, rows, losses] = *ground;
  const RunShape& shape = rows->shape();

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
                             .provenance = provenance(options, environment.context, *rows)});
  const std::int64_t first_step = start_training_state(options, environment, checkpointer, before.checkpoint, state);
  if (first_step > 0) environment.print(fmt::format("resumed from step {} of {}", first_step, shape.steps));

  const std::unique_ptr<ActivationSource> source = rows->source(first_step);
  HeldOut held_out(rows->held_out(), environment.world, *grid, held_out_pieces(options, shape));
  const std::unique_ptr<MetricsLog> log = open_metrics_log(options, environment, first_step);
  LocalStep step({.group = *group.communicator,
                  .grid = *grid,
                  .options = options,
                  .losses = losses,
                  .state = state,
                  .loader = *source,
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

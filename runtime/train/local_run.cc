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

/// Of each layer, every run's.
std::vector<LocalLoss> losses_of(const std::vector<PlannedRun>& runs, const TrainingRows& rows) {
  std::vector<LocalLoss> losses;
  for (std::size_t i = 0; i < rows.shape().layers.size(); ++i) {
    const double scale = delta_scale(rows.scale_squares()[i], rows.shape().layers[i]);
    for (const PlannedRun& run : runs) {
      const LossOptions& loss = run.options.loss;
      const bool relative = loss.sparsity_scale != SparsityScale::kAbsolute;
      losses.push_back({.delta_scale = scale,
                        .sparsity = relative ? loss.sparsity / scale : loss.sparsity,
                        .batch_tokens = run.options.train.batch_tokens});
    }
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
  RunShape shape;                 ///< of all runs
  std::vector<LocalLoss> losses;  ///< of each layer of the shape every run's
};

/// Makes the rows ready, and says what the runs will be. Null when a stop was asked for meanwhile.
std::unique_ptr<Ground> prepare_ground(const std::vector<PlannedRun>& runs, const RunEnvironment& environment) {
  const RunOptions& options = runs.front().options;  // as far as all have them in common
  std::vector<std::int64_t> dictionaries;
  for (const PlannedRun& run : runs) dictionaries.push_back(run.options.adapter.features);
  auto ground = std::make_unique<Ground>();
  agree(environment.world, [&] {
    require_servable_order(options);
    for (const PlannedRun& run : runs) require_countable_leaves(run.options);
    ground->identity = cache_identity(options, environment.files);
    const CacheFormat& format = ground->identity.format;
    const RunShape layers{.layers = format.layers, .width = format.width, .dictionaries = dictionaries};
    ground->grid = std::make_unique<ProcessGrid>(run_grid(options, layers, environment.world.size()));
  });
  const int sharing = ranks_on_device(environment.context, environment.world);
  const auto require_memory = [&](RunShape shape) {
    shape.dictionaries = dictionaries;
    const MemoryEstimate needed = run_memory(options, shape, *ground->grid);
    require_device_memory(environment.context, sharing, needed.on_device(), needed.to_string());
  };
  ground->rows = prepare_training_rows(
      {.options = options, .environment = environment, .identity = ground->identity, .grid = *ground->grid},
      require_memory);
  if (!ground->rows) return nullptr;
  ground->shape = ground->rows->shape();
  ground->shape.dictionaries = dictionaries;
  agree(environment.world, [&] { ground->losses = losses_of(runs, *ground->rows); });
  if (const std::string warning = held_out_warning(options, ground->shape); !warning.empty())
    environment.print(warning);
  environment.print(describe(options, ground->shape, *ground->grid));
  return ground;
}

/// What this rank trains.
TraineeRequest trainees_of(const std::vector<PlannedRun>& runs, const Ground& ground, int rank) {
  const ProcessGrid& grid = *ground.grid;
  TraineeRequest request{
      .runs = {}, .layers = grid.layers_of_block(grid.block_of(rank)), .losses = {}, .width = ground.shape.width};
  for (const PlannedRun& run : runs) request.runs.push_back(&run.options);
  const auto first = std::ranges::find(grid.layers(), request.layers.front()) - grid.layers().begin();
  const auto begin = ground.losses.begin() + first * static_cast<std::ptrdiff_t>(runs.size());
  request.losses.assign(begin, begin + static_cast<std::ptrdiff_t>(request.layers.size() * runs.size()));
  return request;
}

}  // namespace

TrainingOutcome run_local_training(const std::vector<PlannedRun>& runs, const RunEnvironment& environment) {
  const std::unique_ptr<Ground> ground = prepare_ground(runs, environment);
  if (!ground) return runs.front().before;
  const auto& [identity, grid, rows, shape, losses] = *ground;
  const RunOptions& options = runs.front().options;

  const int rank = environment.world.rank();
  const DeviceGroup group =
      make_device_group(environment.world.split(grid->block_of(rank), rank, "data-parallel groups"),
                        environment.context, options.grid.sum_order, options.grid.timeout_seconds);
  environment.print(fmt::format("train: on {}, gradients summed {}", arithmetic_of(environment.context), group.how));
  TrainingState state = make_training_state(trainees_of(runs, *ground, rank), environment, *group.communicator);
  std::vector<Checkpointer> checkpointers;
  std::vector<std::unique_ptr<MetricsLog>> logs;
  std::int64_t first_step = 0;
  for (std::size_t run = 0; run < runs.size(); ++run) {
    const RunOptions& of_run = runs[run].options;
    checkpointers.emplace_back(environment.context, environment.files, environment.world, *group.communicator,
                               CheckpointPlan{.run_dir = of_run.dir,
                                              .run = static_cast<int>(run),
                                              .keep = of_run.checkpoint.keep,
                                              .samples_per_step = of_run.train.batch_tokens,
                                              .samples_per_epoch = shape.train_rows,
                                              .provenance = provenance(of_run, environment.context, *rows)});
    first_step = start_training_state(runs[run], static_cast<int>(run), environment, checkpointers.back(), state);
    logs.push_back(open_metrics_log(of_run, environment, first_step));
  }
  if (first_step > 0) environment.print(fmt::format("resumed from step {} of {}", first_step, shape.steps));

  const std::unique_ptr<ActivationSource> source = rows->source(first_step);
  HeldOut held_out(rows->held_out(), environment.world, *grid, held_out_pieces(options, shape));
  LocalStep step({.group = *group.communicator,
                  .grid = *grid,
                  .options = options,
                  .losses = losses,
                  .state = state,
                  .loader = *source,
                  .held_out = held_out,
                  .environment = environment},
                 shape.steps);
  std::vector<RunOutput> outputs;
  for (std::size_t run = 0; run < runs.size(); ++run)
    outputs.push_back(
        {.checkpointer = checkpointers[run],
         .log = logs[run].get(),
         .share = static_cast<double>(shape.dictionaries[run]) / static_cast<double>(all_features(shape))});
  Trainer trainer(
      {.options = options, .environment = environment, .state = state, .step = step, .outputs = std::move(outputs)},
      shape.steps);
  return trainer.run(first_step);
}

}  // namespace tadapt

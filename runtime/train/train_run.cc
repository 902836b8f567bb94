#include "runtime/train/train_run.h"

#include <cmath>
#include <memory>

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

nlohmann::json provenance(const RunOptions& options, const Context& context, const TrainingRows& rows) {
  const RunShape& shape = rows.shape();
  nlohmann::json layer_scales = nlohmann::json::object();
  for (std::size_t i = 0; i < shape.layers.size(); ++i)
    layer_scales[std::to_string(shape.layers[i])] = rows.scale_squares()[i];
  return {{"config", config_json(options)},
          {"config_hash", config_hash(options)},
          {kTotalSteps, shape.steps},
          {"base", rows.provenance().at("base")},
          {"target", rows.provenance().at("target")},
          {"cache", rows.hash()},
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
  const std::unique_ptr<Ground> ground = prepare_ground(options, environment);
  if (!ground) return before;
  const auto& [identity, grid, rows, losses] = *ground;
  const RunShape& shape = rows->shape();

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
                             .provenance = provenance(options, environment.context, *rows)});
  for (std::size_t i = 0; i < trainees.size(); ++i)
    trainees[i].adapter->initialise(environment.context, store.master_views(i), trainees[i].seed, trainees[i].layer);
  std::int64_t first_step = 0;
  if (!before.checkpoint.empty()) {
    first_step = checkpointer.restore(before.checkpoint, trainees, store, optimiser, environment.print);
    environment.print(fmt::format("resumed from step {} of {}", first_step, shape.steps));
  }

  const std::unique_ptr<ActivationSource> source = rows->source(first_step);
  HeldOut held_out(rows->held_out(), environment.world, *grid, held_out_pieces(options, shape));
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
                   .loader = *source,
                   .held_out = held_out,
                   .checkpointer = checkpointer,
                   .log = log.get(),
                   .environment = environment},
                  shape.steps);
  return trainer.run(first_step);
}

}  // namespace tadapt

#include "runtime/train/run_state.h"

#include <algorithm>

#include "kernels/core/memory.h"
#include "kernels/matmul.h"
#include "runtime/adapter/break_even.h"
#include "runtime/bundle/adapter_bundle.h"
#include "runtime/train/agreement.h"
#include "runtime/train/device_choice.h"
#include "runtime/train/option_table.h"
#include "runtime/train/run_directory.h"
#include "runtime/train/state_shards.h"

namespace tadapt {
namespace {

std::vector<ParameterGroupSpec> group_specs(const std::vector<Trainee>& trainees) {
  std::vector<ParameterGroupSpec> specs;
  for (const Trainee& trainee : trainees) specs.push_back(trainee.adapter->parameters(trainee.name));
  return specs;
}

/// Masters of a run's trainees become those of other adapters.
void copy_bundle(Context& context, const AdapterBundle& bundle, int run, TrainingState& state) {
  for (std::size_t i = 0; i < state.trainees.size(); ++i) {
    const Trainee& trainee = state.trainees[i];
    if (trainee.run != run) continue;
    const auto found = std::ranges::find(bundle.layers, trainee.layer, &AdapterBundle::Layer::layer);
    if (found == bundle.layers.end())
      throw ConfigError("adapter.init_from: {} has no adapter of layer {}", bundle.source, trainee.layer);
    const AdapterShape& wanted = trainee.adapter->shape();
    if (found->shape.features != wanted.features || found->shape.model_width != wanted.model_width)
      throw ConfigError(
          "adapter.init_from: {}: layer {} has {} features of width {}, expected {} (adapter.features) of {}",
          bundle.source, trainee.layer, found->shape.features, found->shape.model_width, wanted.features,
          wanted.model_width);
    copy(context, found->store->master(0), state.store.master(i));
    synchronize(context);
  }
}

}  // namespace

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

TrainingState make_training_state(const TraineeRequest& request, const RunEnvironment& environment,
                                  const Communicator& group) {
  const Device device = environment.context.device();
  std::vector<Trainee> trainees;
  for (const int layer : request.layers) {
    for (std::size_t run = 0; run < request.runs.size(); ++run) {
      const RunOptions& options = *request.runs[run];
      const AdapterShape shape{request.width, options.adapter.features};
      const AdapterCompute compute{
          options.train.compute,
          options.adapter.sparse_below.value_or(break_even(device, shape, options.train.compute)), request.gradients};
      trainees.push_back(
          {.name = trainee_name(layer),
           .layer = layer,
           .run = static_cast<int>(run),
           .seed = options.train.seed,
           .loss = request.losses.empty() ? LocalLoss{} : request.losses[trainees.size()],
           .adapter = make_adapter(options.adapter.type, shape, compute),
           .tokens_since_active = std::vector<std::int64_t>(static_cast<std::size_t>(options.adapter.features), 0)});
    }
  }
  ParameterStore store(device, group_specs(trainees));
  AdamWState optimiser(device, store, state_parts(request.runs.front()->optim.shard_state, store, group));
  return {std::move(trainees), std::move(store), std::move(optimiser)};
}

std::int64_t start_training_state(const PlannedRun& planned, int run, const RunEnvironment& environment,
                                  Checkpointer& checkpointer, TrainingState& state) {
  const auto& [options, before] = planned;
  if (!before.checkpoint.empty()) return checkpointer.restore(before.checkpoint, state, environment.print);
  for (std::size_t i = 0; i < state.trainees.size(); ++i) {
    const Trainee& trainee = state.trainees[i];
    if (trainee.run == run)
      trainee.adapter->initialise(environment.context, state.store.master_views(i), trainee.seed, trainee.layer);
  }
  if (options.adapter.init_from.empty()) return 0;
  agree(environment.world, [&] {
    const AdapterBundle bundle = load_adapters(environment.files, options.adapter.init_from, environment.print);
    require_models_fit(environment.files, bundle, options.model.base, options.model.target);
    copy_bundle(environment.context, bundle, run, state);
    environment.print(fmt::format("train: starts from {}", bundle.source));
  });
  return 0;
}

std::unique_ptr<MetricsLog> open_metrics_log(const RunOptions& options, const RunEnvironment& environment,
                                             std::int64_t first_step) {
  std::unique_ptr<MetricsLog> log;
  agree(environment.world, [&] {
    if (environment.world.rank() == 0)
      log = std::make_unique<MetricsLog>(environment.files, options.dir, first_step, options.log.metrics_every_steps);
  });
  if (log != nullptr && log->missing_steps() > 0)
    environment.print(fmt::format("WARNING: metrics.jsonl lacks the lines of {} of the steps before {}; they stay lost",
                                  log->missing_steps(), first_step + 1));
  return log;
}

nlohmann::json common_provenance(const RunOptions& options, const Context& context, std::int64_t steps) {
  return {{"config", config_json(options)},
          {"config_hash", config_hash(options)},
          {kTotalSteps, steps},
          {"adapter_type", options.adapter.type},
          {"seed", options.train.seed},
          {"arithmetic", arithmetic_of(context)},
          {"versions", {{"tadapt", TADAPT_VERSION}, {"products", product_library(context.device())}}}};
}

}  // namespace tadapt

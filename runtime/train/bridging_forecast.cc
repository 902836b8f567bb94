// The bridging objective.
#include <algorithm>
#include <numeric>

#include "runtime/plan/bridging_cost.h"
#include "runtime/train/bridging_options.h"
#include "runtime/train/bridging_step.h"
#include "runtime/train/forecast_parts.h"
#include "runtime/train/sequence_batches.h"

namespace tadapt {
namespace {

constexpr std::int64_t kSampledSteps = 64;

/// What the first steps have on average.
struct Sampled {
  std::vector<BridgingSample> steps = {};
  std::vector<LayerBridges> bridges = {};  ///< by layer
  double heads = 0.0, tokens = 0.0, context = 0.0;
};

void add_bridges(const BridgingSchedule& schedule, double share, Sampled& sampled) {
  for (int interval = 0; interval < schedule.intervals(); ++interval)
    for (int layer = schedule.borders[static_cast<std::size_t>(interval)];
         layer < schedule.borders[static_cast<std::size_t>(interval) + 1]; ++layer) {
      LayerBridges& bridges = sampled.bridges[static_cast<std::size_t>(layer)];
      bridges.a2r += share * schedule.a2r_branches(interval);
      bridges.r2a += share * schedule.r2a_branches(interval);
    }
  sampled.heads += share * static_cast<double>(schedule.a2r.size() + schedule.r2a.size()) / 2.0;
}

Sampled sample(const RunOptions& options, const BridgingShape& shape, const TokenDataset& corpus) {
  const SequenceBatches batches(corpus, options.train.seed, options.train.batch_sequences, shape.leaves);
  const std::int64_t steps = std::min(shape.steps, kSampledSteps);
  Sampled sampled{.bridges = std::vector<LayerBridges>(static_cast<std::size_t>(shape.target.layers))};
  double contexts = 0.0;
  for (std::int64_t step = 0; step < steps; ++step) {
    BridgingSample one{.cutoffs = cutoffs_of_step(options, shape.target.layers, step), .leaf_tokens = {}};
    for (std::int64_t leaf = 0; leaf < shape.leaves; ++leaf) {
      const TokenBatch batch = batches.leaf(step, leaf);
      one.leaf_tokens.push_back(batch.tokens());
      sampled.tokens += as_double(batch.tokens());
      for (std::size_t i = 1; i < batch.offsets.size(); ++i) {
        const double tokens = batch.offsets[i] - batch.offsets[i - 1];
        contexts += tokens * (tokens + 1.0) / 2.0;
      }
    }
    add_bridges(BridgingSchedule(shape.target.layers, options.loss.backbone, one.cutoffs), 1.0 / as_double(steps),
                sampled);
    sampled.steps.push_back(std::move(one));
  }
  sampled.context = contexts / sampled.tokens;
  sampled.tokens /= as_double(steps);
  return sampled;
}

/// A mean over the sampled steps.
StepTraffic mean_traffic(const std::vector<BridgingSample>& steps,
                         const std::function<StepTraffic(const BridgingSample&)>& of_step) {
  StepTraffic mean = of_step(steps.front());
  mean.states = 0;
  for (const BridgingSample& step : steps) mean.states += of_step(step).states;
  mean.states /= static_cast<std::int64_t>(steps.size());
  return mean;
}

}  // namespace

Forecast forecast_bridging(const RunOptions& options, const BridgingShape& shape, const ProcessGrid& grid,
                           const ForecastMachine& machine, const TokenDataset& corpus) {
  const MachineRates& rates = machine.rates;
  const Sampled sampled = sample(options, shape, corpus);
  Forecast forecast{.tokens = sampled.tokens, .steps = shape.steps, .layer_balance = layer_balance(grid)};
  forecast.traffic = most_traffic(grid, [&](int rank) {
    return mean_traffic(sampled.steps, [&](const BridgingSample& step) {
      return bridging_traffic(options, shape, grid, rank, step, sum_path(options, machine.device));
    });
  });
  const AdapterShape adapter{shape.target.width, options.adapter.features};
  BridgingStepWork work{.target = shape.target,
                        .layers = shape.layers,
                        .leaves = shape.leaves,
                        .leaf_tokens = sampled.tokens / as_double(shape.leaves),
                        .context_tokens = sampled.context,
                        .bridges = sampled.bridges,
                        .heads = sampled.heads,
                        .features = options.adapter.features,
                        .recording = recording_of(options.train.recompute)};
  const auto layers = static_cast<double>(grid.most_layers());
  const AdapterSeconds update = adapter_seconds(
      {.width = adapter.model_width, .features = adapter.features, .leaves = shape.leaves / grid.data_parallel()},
      rates);
  const auto made_of = [&](std::optional<double> active) {
    work.active = active;
    const double leaves = leaves_seconds(work, layer_seconds(work, rates), grid.shape());
    const double states = grid.blocks() * grid.branch_parallel() == 1
                              ? 0.0
                              : as_double(forecast.traffic.states) / exchange_rate(options, rates, grid.ranks());
    return std::vector<std::pair<std::string, double>>{
        {"passes", leaves},
        {"states", states},
        {"update", layers * update.update},
        {"exchange", exchange_seconds(options, grid, machine, forecast.traffic, layers, leaves / 2.0)},
        {"figures", figure_seconds(options, grid, rates, forecast.traffic, 2)}};
  };
  forecast.parts = made_of(std::nullopt);
  forecast.dense_seconds = forecast.seconds();
  forecast.parts = made_of(sparse_active(options, adapter, machine.device));
  return forecast;
}

}  // namespace tadapt

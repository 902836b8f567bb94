// The local objective, and captures.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "runtime/train/forecast_parts.h"

namespace tadapt {
namespace {

enum class Density : std::uint8_t { kExpected, kDense };

/// What the local objective's adapters take of a step on the rank with most layers.
AdapterSeconds local_seconds(const RunOptions& options, const RunShape& shape, const ProcessGrid& grid,
                             const ForecastMachine& machine, Density density) {
  AdapterSeconds sum;
  const auto layers = static_cast<double>(grid.most_layers());
  for (const std::int64_t features : shape.dictionaries) {
    const AdapterShape adapter{shape.width, features};
    const AdapterSeconds one = adapter_seconds(
        {.width = shape.width,
         .features = features,
         .tokens = as_double(options.train.batch_tokens) / grid.data_parallel(),
         .leaves = options.train.reduction_leaves / grid.data_parallel(),
         .active = density == Density::kDense ? std::nullopt : sparse_active(options, adapter, machine.device)},
        machine.rates);
    sum.compute += layers * one.compute;
    sum.update += layers * one.update;
  }
  return sum;
}

double held_out_seconds(const RunOptions& options, const RunShape& shape, const ProcessGrid& grid,
                        const MachineRates& rates) {
  if (options.train.evaluate_every_steps == 0) return 0.0;
  const double rows = as_double(shape.held_out_rows) / grid.data_parallel();
  return static_cast<double>(grid.most_layers()) * rows * 4.0 * as_double(shape.width) *
         as_double(all_features(shape)) / rates.flops_per_second / as_double(options.train.evaluate_every_steps);
}

/// Of a rank's share of a node's storage.
double storage_rate(const RunOptions& options, int ranks) {
  return options.plan.storage_bytes_per_second / std::min(ranks, options.plan.ranks_per_node);
}

double row_bytes(const RunShape& shape) {
  return 2.0 * as_double(shape.width) * static_cast<double>(bytes_per_element(shape.row_dtype));
}

std::string slow_cache_warning(const RunShape& shape, double reading, double streaming, double tokens) {
  return fmt::format(
      "WARNING: reading the cache ({} per token, {:.4g} tokens/s at plan.storage_bytes_per_second) is slower than "
      "making "
      "the rows anew ({:.4g} tokens/s with cache.source: stream)",
      readable_bytes(static_cast<std::int64_t>(row_bytes(shape) * static_cast<double>(shape.layers.size()))),
      tokens / reading, tokens / streaming);
}

}  // namespace

Forecast forecast_local(const RunOptions& options, const RunShape& shape, const ProcessGrid& grid,
                        const ForecastMachine& machine, double model_flops_per_row) {
  const MachineRates& rates = machine.rates;
  Forecast forecast{
      .tokens = as_double(options.train.batch_tokens),
      .steps = shape.steps,
      .traffic = most_traffic(
          grid, [&](int rank) { return local_traffic(options, shape, grid, rank, sum_path(options, machine.device)); }),
      .layer_balance = layer_balance(grid)};
  const auto layers = static_cast<double>(grid.most_layers());
  const double models =
      forecast.tokens * model_flops_per_row / static_cast<double>(grid.ranks()) / rates.forward_flops_per_second;
  const bool streams = options.cache.source == RowSource::kStream;
  const auto made_of = [&](Density density) {
    const AdapterSeconds adapters = local_seconds(options, shape, grid, machine, density);
    const double trainees = layers * static_cast<double>(shape.dictionaries.size());
    std::vector<std::pair<std::string, double>> parts = {
        {"adapters", adapters.compute},
        {"update", adapters.update},
        {"exchange", exchange_seconds(options, grid, machine, forecast.traffic, trainees, adapters.compute)},
        {"figures", figure_seconds(options, grid, rates, forecast.traffic, 1)},
        {"held-out", held_out_seconds(options, shape, grid, rates)}};
    if (streams) {
      const double sent = as_double(forecast.traffic.rows) / exchange_rate(options, rates, grid.ranks());
      parts.emplace_back("models", models + (grid.ranks() == 1 ? 0.0 : sent));
    }
    return parts;
  };
  const double reading =
      layers * forecast.tokens / grid.data_parallel() * row_bytes(shape) / storage_rate(options, grid.ranks());
  if (!streams) forecast.reading = reading;
  forecast.parts = made_of(Density::kDense);
  forecast.dense_seconds = forecast.seconds();
  forecast.parts = made_of(Density::kExpected);
  const double computing = forecast.computing();
  if (!streams && models > 0.0 && reading > computing + models)
    forecast.warning = slow_cache_warning(shape, reading, computing + models, forecast.tokens);
  return forecast;
}

CaptureForecast forecast_capture(const RunOptions& options, const CapturePlan& plan, int ranks,
                                 const MachineRates& rates) {
  const double nodes = std::ceil(static_cast<double>(ranks) / options.plan.ranks_per_node);
  // A rank takes whole shards.
  const double sharing = static_cast<double>(std::min<std::int64_t>(ranks, plan.shards()));
  return {.compute = plan.flops / sharing / rates.forward_flops_per_second,
          .writing = static_cast<double>(plan.size.shard_bytes) / nodes / options.plan.storage_bytes_per_second};
}

}  // namespace tadapt

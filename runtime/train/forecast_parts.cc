#include "runtime/train/forecast_parts.h"

#include <algorithm>
#include <cmath>

#include "runtime/adapter/break_even.h"

namespace tadapt {

std::optional<double> sparse_active(const RunOptions& options, const AdapterShape& shape, Device device) {
  const double active = std::min(options.plan.active_features.value_or(kAssumedActive), as_double(shape.features));
  const double below = options.adapter.sparse_below.value_or(break_even(device, shape, options.train.compute));
  return active < below ? std::optional(active) : std::nullopt;
}

double exchange_rate(const RunOptions& options, const MachineRates& rates, int neighbours) {
  return neighbours > options.plan.ranks_per_node ? rates.network_bytes_per_second : rates.exchange_bytes_per_second;
}

double exchange_seconds(const RunOptions& options, const ProcessGrid& grid, const ForecastMachine& machine,
                        const StepTraffic& traffic, double adapters, double compute) {
  const int group = grid.group_size();
  if (group == 1) return 0.0;
  const double all = as_double(traffic.gradients + traffic.weights) / exchange_rate(options, machine.rates, group) +
                     adapters * 2.0 * std::log2(group) * machine.rates.seconds_per_message;
  return machine.device == Device::kCpu ? all : std::max(all - compute, 0.0) + all / adapters;
}

double figure_seconds(const RunOptions& options, const ProcessGrid& grid, const MachineRates& rates,
                      const StepTraffic& traffic, int rounds) {
  if (grid.ranks() == 1) return 0.0;
  return rounds * std::ceil(std::log2(grid.ranks())) * rates.seconds_per_message +
         as_double(traffic.figures) / exchange_rate(options, rates, grid.ranks());
}

SumPath sum_path(const RunOptions& options, Device device) {
  return device == Device::kCuda && options.grid.sum_order == SumOrder::kFast ? SumPath::kRing : SumPath::kPairwise;
}

StepTraffic most_traffic(const ProcessGrid& grid, const std::function<StepTraffic(int rank)>& of_rank) {
  StepTraffic most;
  for (int block = 0; block < grid.blocks(); ++block)
    for (const int index : {0, grid.group_size() - 1}) {
      const StepTraffic one = of_rank(grid.rank_of(block, index));
      if (one.total() > most.total()) most = one;
    }
  return most;
}

double layer_balance(const ProcessGrid& grid) {
  return static_cast<double>(grid.layers().size()) /
         (static_cast<double>(grid.most_layers()) * static_cast<double>(grid.blocks()));
}

}  // namespace tadapt

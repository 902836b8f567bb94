// What the forecasts of both objectives count alike.
#pragma once

#include <optional>

#include "runtime/plan/grid_cost.h"
#include "runtime/train/forecast.h"

namespace tadapt {

inline double as_double(std::int64_t value) { return static_cast<double>(value); }

/// plan.active_features where an adapter of this shape would take the sparse route at it; none where the dense one.
std::optional<double> sparse_active(const RunOptions& options, const AdapterShape& shape, Device device);

/// Bytes per second between ranks of which so many neighbours talk: beyond a node's ranks over the network.
double exchange_rate(const RunOptions& options, const MachineRates& rates, int neighbours);

/// What sums and gathers of so many adapters take of a step in which the computation they may run beside takes
/// `compute` seconds. On a CPU, whose cores do both, nothing is hidden; on a GPU all but the last adapter's.
double exchange_seconds(const RunOptions& options, const ProcessGrid& grid, const ForecastMachine& machine,
                        const StepTraffic& traffic, double adapters, double compute);

/// Everyone's figures to everyone, `rounds` times.
double figure_seconds(const RunOptions& options, const ProcessGrid& grid, const MachineRates& rates,
                      const StepTraffic& traffic, int rounds);

SumPath sum_path(const RunOptions& options, Device device);

/// The most that a rank sends: of each block the first and the last are looked at.
StepTraffic most_traffic(const ProcessGrid& grid, const std::function<StepTraffic(int rank)>& of_rank);

/// The ranks' mean share of the layers over the largest.
double layer_balance(const ProcessGrid& grid);

}  // namespace tadapt

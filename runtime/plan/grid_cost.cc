// The terms of a training step's time.
#include "runtime/plan/grid_cost.h"

#include <algorithm>
#include <cmath>

#include "runtime/plan/estimate.h"

namespace tadapt {
namespace {
constexpr double kUpdateBytes = 34;  // 16 read, 12 + 2 written, 4 cleared
constexpr double kExchangeBytes = 4;
}  // namespace

double step_seconds(const StepWork& work, const MachineRates& rates, GridShape shape) {
  const double layers = largest_block(work.layers, shape.blocks);
  const double group = shape.data_parallel;
  const double parameters = static_cast<double>(transcoder_parameters(work.width, work.features));
  const double products = 10.0 * static_cast<double>(work.batch_tokens) * static_cast<double>(work.width) *
                          static_cast<double>(work.features);
  const double compute = layers * products / group / rates.flops_per_second;
  const double update = layers * parameters * kUpdateBytes / rates.memory_bytes_per_second;
  const double exchange_one = 2 * (1 - 1 / group) * kExchangeBytes * parameters / rates.exchange_bytes_per_second +
                              2 * std::log2(group) * rates.seconds_per_message;
  return std::max(compute, layers * exchange_one) + update + exchange_one;
}

GridShape choose_grid(const GridRequest& request, const StepWork& work, const MachineRates& rates) {
  return choose_grid(request, [&](GridShape shape) { return step_seconds(work, rates, shape); });
}

}  // namespace tadapt

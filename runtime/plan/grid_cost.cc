// The terms of a training step's time.
#include "runtime/plan/grid_cost.h"

#include <algorithm>
#include <cmath>

#include "runtime/plan/estimate.h"

namespace tadapt {
namespace {
constexpr double kUpdateBytes = 34;  // 16 read, 12 + 2 written, 4 cleared
constexpr double kExchangeBytes = 4;
constexpr double kJoinBytes = 12;  // two leaves are read, one written
constexpr double kPairFlops = 8;   // · D: decoder, feature gradient, two weight gradients
}  // namespace

AdapterSeconds adapter_seconds(const AdapterWork& work, const MachineRates& rates) {
  const double width = static_cast<double>(work.width), features = static_cast<double>(work.features);
  const double parameters = static_cast<double>(transcoder_parameters(work.width, work.features));
  const double encoder = 2.0 * work.tokens * width * features;
  const double joins = kJoinBytes * static_cast<double>(std::max<std::int64_t>(0, work.leaves - 1));
  return {.compute = work.active ? encoder / rates.encoder_flops_per_second +
                                       work.tokens * *work.active * kPairFlops * width / rates.pair_flops_per_second
                                 : 5.0 * encoder / rates.flops_per_second,
          .update = parameters * (kUpdateBytes + joins) / rates.memory_bytes_per_second};
}

double step_seconds(const StepWork& work, const MachineRates& rates, GridShape shape) {
  const double layers = largest_block(work.layers, shape.blocks);
  const double group = shape.data_parallel;
  const double parameters = static_cast<double>(transcoder_parameters(work.width, work.features));
  const AdapterSeconds one = adapter_seconds(
      {.width = work.width, .features = work.features, .tokens = static_cast<double>(work.batch_tokens) / group},
      rates);
  const double compute = layers * one.compute, update = layers * one.update;
  const double exchange_one = 2 * (1 - 1 / group) * kExchangeBytes * parameters / rates.exchange_bytes_per_second +
                              2 * std::log2(group) * rates.seconds_per_message;
  return std::max(compute, layers * exchange_one) + update + exchange_one;
}

GridShape choose_grid(const GridRequest& request, const StepWork& work, const MachineRates& rates) {
  return choose_grid(request, [&](GridShape shape) { return step_seconds(work, rates, shape); });
}

}  // namespace tadapt

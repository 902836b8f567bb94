#include "runtime/plan/bridging_cost.h"

#include <algorithm>
#include <numeric>

namespace tadapt {

std::vector<LayerBridges> uniform_bridges(int layers, int bridges) {
  std::vector<LayerBridges> means;
  for (int layer = 0; layer < layers; ++layer) {
    const double begun = bridges * static_cast<double>(layer + 1) / (layers + 1);
    means.push_back({begun, begun});
  }
  return means;
}

namespace {

/// Per token: its forward and backward in the adapter model or a bridge.
double adapter_seconds_of_a_token(const BridgingStepWork& work, const MachineRates& rates) {
  const double products = 2.0 * static_cast<double>(work.target.width) * static_cast<double>(work.features);
  if (!work.active) return 6.0 * products / rates.flops_per_second;
  constexpr double kPairFlops = 10;  // · D: as in the local objective, and the input's gradient
  const double again = work.recording == Recording::kAll ? 1.0 : 2.0;
  return again * products / rates.encoder_flops_per_second +
         *work.active * kPairFlops * static_cast<double>(work.target.width) / rates.pair_flops_per_second;
}

}  // namespace

std::vector<double> layer_seconds(const BridgingStepWork& work, const MachineRates& rates) {
  const ForwardFlops flops = forward_flops(work.target);
  const double forward =
      flops.attention_per_token + flops.mlp_per_token + flops.attention_per_context * work.context_tokens;
  const double backward = forward + (work.recording == Recording::kAll ? 0.0 : 2.0 / 3.0 * flops.mlp_per_token);
  const double adapter = adapter_seconds_of_a_token(work, rates);
  std::vector<double> seconds;
  for (int layer = 0; layer < work.target.layers; ++layer) {
    const bool trained = std::ranges::find(work.layers, layer) != work.layers.end();
    const auto [a2r, r2a] = work.bridges.at(static_cast<std::size_t>(layer));
    const double of_a_token = (2.0 + a2r + r2a) * forward / rates.forward_flops_per_second +
                              (1.0 + a2r + r2a) * backward / rates.backward_flops_per_second +
                              (trained ? (1.0 + r2a) * adapter : 0.0);
    const bool opens = trained && layer != work.layers.front();
    if (seconds.empty() || opens)
      seconds.push_back(work.leaf_tokens * of_a_token);
    else
      seconds.back() += work.leaf_tokens * of_a_token;
  }
  const double heads = 1.0 + 2.0 * (1.0 + 2.0 * work.heads);
  seconds.back() += work.leaf_tokens * heads * flops.head_per_token / rates.head_flops_per_second;
  return seconds;
}

double leaves_seconds(const BridgingStepWork& work, const std::vector<double>& layer_seconds, GridShape shape) {
  const ProcessGrid grid(shape, work.layers, layer_seconds);
  const double all = std::accumulate(layer_seconds.begin(), layer_seconds.end(), 0.0);
  double dearest = 0.0;
  auto next = layer_seconds.begin();
  for (int block = 0; block < grid.blocks(); ++block) {
    const auto end = next + static_cast<std::ptrdiff_t>(grid.layers_of_block(block).size());
    dearest = std::max(dearest, std::accumulate(next, end, 0.0));
    next = end;
  }
  const double slower_side = shape.branch_parallel > 1 ? (2.0 + work.heads) / (3.0 + 2.0 * work.heads) : 1.0;
  const std::int64_t own_leaves = work.leaves / shape.data_parallel;
  // In this order grids that take equally long come out equal to the bit.
  return (static_cast<double>(own_leaves - 1) * dearest / all + 1.0) * slower_side * all;
}

}  // namespace tadapt

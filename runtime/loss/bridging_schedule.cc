#include "runtime/loss/bridging_schedule.h"

#include <algorithm>
#include <map>

#include "kernels/core/error.h"
#include "kernels/core/random.h"

namespace tadapt {

BridgingSchedule::BridgingSchedule(int layers, Backbone backbone, std::span<const int> cutoffs) : borders{0} {
  std::map<int, int> drawn;
  for (const int k : cutoffs) {
    require_shape(0 <= k && k <= layers, "cutoff {} of a model of {} layers", k, layers);
    ++drawn[k];
  }
  const bool same_trunk = backbone == Backbone::kTarget;
  for (const auto& [k, times] : drawn) {
    const double share = static_cast<double>(times) / static_cast<double>(cutoffs.size());
    if (k > 0 && k < layers) borders.push_back(k);
    if (k == 0 && same_trunk)
      r2a_as_adapter = share;
    else if (k < layers)
      r2a.push_back({k, share});
    if (k == layers)
      (same_trunk ? a2r_as_adapter : a2r_by_head) = share;
    else if (k > 0)
      a2r.push_back({k, share});
  }
  borders.push_back(layers);
}

int BridgingSchedule::begun(const std::vector<Bridge>& bridges, int interval) const {
  const int border = borders.at(static_cast<std::size_t>(interval));
  return static_cast<int>(std::ranges::count_if(bridges, [&](const Bridge& one) { return one.cutoff <= border; }));
}

std::int64_t layer_passes(const BridgingSchedule& schedule) {
  const int layers = schedule.borders.back();
  std::int64_t passes = 3 * layers;
  for (const auto* bridges : {&schedule.a2r, &schedule.r2a})
    for (const Bridge& one : *bridges) passes += 2 * (layers - one.cutoff);
  return passes;
}

std::vector<int> draw_cutoffs(std::uint64_t seed, std::int64_t step, int count, int first, int layers) {
  std::vector<int> cutoffs;
  for (int draw = 0; draw < count; ++draw) {
    const RandomStream random(seed, RandomPurpose::kCutoff, static_cast<std::uint64_t>(step),
                              static_cast<std::uint64_t>(draw));
    cutoffs.push_back(first + static_cast<int>(random.below(0, static_cast<std::uint64_t>(layers - first + 1))));
  }
  return cutoffs;
}

}  // namespace tadapt

#include "runtime/loss/stage_traffic.h"

namespace tadapt {

std::int64_t states_sent(const BridgingSchedule& schedule, const BridgingPart& part) {
  const auto [begin, end] = part.layers;
  // Branches of this rank whose state or cotangent passes the border below `layer`.
  const auto branches_at = [&](int layer) {
    int interval = 0;
    while (schedule.borders[static_cast<std::size_t>(interval) + 1] < layer) ++interval;
    std::int64_t count = 0;
    if (part.runs_adapter()) count += 1 + schedule.a2r_branches(interval);
    if (part.runs_target()) count += schedule.r2a_branches(interval);
    return count;
  };
  std::int64_t states = 0;
  if (end < schedule.borders.back()) states += branches_at(end) + (part.runs_target() ? 1 : 0);
  if (begin > 0) states += branches_at(begin);
  if (part.side == BranchSide::kTarget) states += part.layers.count() + 1;
  return states;
}

}  // namespace tadapt

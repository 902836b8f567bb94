#include "runtime/optim/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace tadapt {

double CosineSchedule::at(std::int64_t step) const {
  const auto warmup = static_cast<std::int64_t>(warmup_fraction * static_cast<double>(steps));
  if (step < warmup) return peak * static_cast<double>(step) / static_cast<double>(warmup);
  const double span = static_cast<double>(std::max<std::int64_t>(1, steps - warmup));
  const double progress = std::min(1.0, static_cast<double>(step - warmup) / span);
  return peak * 0.5 * (1.0 + std::cos(std::numbers::pi * progress));
}

double SparsityRamp::at(std::int64_t step) const {
  const auto ramp = static_cast<std::int64_t>(fraction * static_cast<double>(steps));
  if (step >= ramp) return 1.0;
  return initial + (1.0 - initial) * static_cast<double>(step) / static_cast<double>(ramp);
}

}  // namespace tadapt

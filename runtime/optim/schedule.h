// The learning rate as a function of the step.
#pragma once

#include <cstdint>

namespace tadapt {

/// Linear warm-up from 0 over w = int(warmup_fraction · steps) steps, then cosine to 0:
///   lr(step) = peak · step / w                                   step < w
///            = peak · ½ (1 + cos(π (step − w) / (steps − w)))    otherwise
/// `step` counts from 0, so the first step of a warmed-up run has learning rate 0. Source: the schedule the adapters'
/// authors train with (transformers' get_cosine_schedule_with_warmup).
struct CosineSchedule {
  double peak = 0.0;
  double warmup_fraction = 0.0;
  std::int64_t steps = 0;

  double at(std::int64_t step) const;
};

/// How much of its full weight the sparsity term has: from `initial` linearly to 1 over the first int(fraction · steps)
/// steps, then 1.
struct SparsityRamp {
  double initial = 1.0;
  double fraction = 0.0;
  std::int64_t steps = 0;

  double at(std::int64_t step) const;
};

}  // namespace tadapt

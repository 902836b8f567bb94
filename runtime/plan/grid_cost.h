// The cost model by which `auto` chooses a process grid: seconds of one training step of the slowest rank.
#pragma once

#include <cstdint>

#include "runtime/comm/process_grid.h"

namespace tadapt {

/// What one step of the local objective does for each layer.
struct StepWork {
  int layers = 1;                 ///< trained layers
  std::int64_t width = 0;         ///< D
  std::int64_t features = 0;      ///< F
  std::int64_t batch_tokens = 0;  ///< over all ranks
};

/// Sustained rates of one rank. The defaults are one CPU core's; only their ratios matter for the choice.
struct MachineRates {
  double flops_per_second = 5e10;
  double memory_bytes_per_second = 1e10;
  double exchange_bytes_per_second = 2e9;
  double seconds_per_message = 2e-5;
};

/// Seconds of one step on the rank with most layers. With n = layers in the largest block, p = 2DF + F + D parameters
/// a layer, T batch tokens and G data-parallel ranks:
///   compute  n · 10 · T · D · F / G / flops           (dense forward, both gradients of encoder and decoder)
///   update   n · p · 34 bytes / memory                (AdamW reads master, two moments, gradient; writes three and a
///                                                      bf16 working copy; the gradient is cleared)
///   exchange n · 2(1 − 1/G) · 4p bytes / exchange + n · 2 log2(G) · message
/// An exchange overlaps the compute of the next layer, so the step takes max(compute, exchange) + update, plus the
/// exchange of one layer that nothing overlaps.
double step_seconds(const StepWork& work, const MachineRates& rates, GridShape shape);

/// choose_grid with this model.
GridShape choose_grid(const GridRequest& request, const StepWork& work, const MachineRates& rates);

}  // namespace tadapt

// The cost model by which `auto` chooses a process grid: seconds of one training step of the slowest rank.
#pragma once

#include <cstdint>
#include <optional>

#include "runtime/comm/process_grid.h"
#include "runtime/plan/machine_rates.h"

namespace tadapt {

/// What one step of the local objective does for each layer.
struct StepWork {
  int layers = 1;                 ///< trained layers
  std::int64_t width = 0;         ///< D
  std::int64_t features = 0;      ///< F
  std::int64_t batch_tokens = 0;  ///< over all ranks
};

/// One adapter in one step on one rank.
struct AdapterWork {
  std::int64_t width = 0;
  std::int64_t features = 0;
  double tokens = 0;                  ///< of the batch, on this rank
  std::int64_t leaves = 1;            ///< of them
  std::optional<double> active = {};  ///< features per token, by the sparse route; none: the dense one
};
struct AdapterSeconds {
  double compute = 0;  ///< dense: 10·T·D·F / flops; sparse: 2·T·D·F / encoder + T·active·8·D / pairs
  /// p·34 bytes / memory (AdamW reads master, two moments, gradient; writes three and a bf16 working copy; the gradient
  /// is cleared), and 12 bytes for each parameter of a leaf that joins another
  double update = 0;
};
AdapterSeconds adapter_seconds(const AdapterWork& work, const MachineRates& rates);

/// Seconds of one step on the rank with most layers. With n = layers in the largest block, p = 2DF + F + D parameters
/// a layer, T batch tokens and G data-parallel ranks:
///   compute, update  n · adapter_seconds of T / G tokens, dense and in one leaf
///   exchange n · 2(1 − 1/G) · 4p bytes / exchange + n · 2 log2(G) · message
/// An exchange overlaps the compute of the next layer, so the step takes max(compute, exchange) + update, plus the
/// exchange of one layer that nothing overlaps.
double step_seconds(const StepWork& work, const MachineRates& rates, GridShape shape);

/// choose_grid with this model.
GridShape choose_grid(const GridRequest& request, const StepWork& work, const MachineRates& rates);

}  // namespace tadapt

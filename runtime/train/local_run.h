// Runs of the local objective: every layer by itself, from an activation cache.
#pragma once

#include <vector>

#include "runtime/train/run_environment.h"
#include "runtime/train/run_state.h"

namespace tadapt {

/// Trains runs side by side on one reading of each batch. They stand at the same step, and their options differ in
/// run.dir, adapter.features and loss.sparsity only; each comes out with the bits it would have alone. Run directories
/// are locked. Captures first when there is no cache. Collective. DivergedRun.
TrainingOutcome run_local_training(const std::vector<PlannedRun>& runs, const RunEnvironment& environment);

}  // namespace tadapt

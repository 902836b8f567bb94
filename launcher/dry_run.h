// Dry runs: what training would be, and whether it fits, before anything is written.
#pragma once

#include <vector>

#include "runtime/train/run_environment.h"
#include "runtime/train/run_options.h"

namespace tadapt {

/// Prints grid, steps, memory and disk of a run. The errors of training that show so early. Collective.
void dry_run(const RunOptions& options, const RunEnvironment& environment);
/// The same of runs of the local objective that are trained side by side.
void dry_run_side_by_side(const std::vector<const RunOptions*>& runs, const RunEnvironment& environment);

}  // namespace tadapt

// A run of the local objective: every layer by itself, from an activation cache.
#pragma once

#include "runtime/train/run_environment.h"
#include "runtime/train/run_options.h"
#include "runtime/train/trainer.h"

namespace tadapt {

/// Goes on from `before`; the run directory is locked. Captures first when there is no cache. Collective.
TrainingOutcome run_local_training(const RunOptions& options, const RunEnvironment& environment,
                                   const TrainingOutcome& before);

}  // namespace tadapt

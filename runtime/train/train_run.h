// A training run from its options to trained adapters: capture when there is no cache, resume when there is a state.
#pragma once

#include "runtime/train/run_environment.h"
#include "runtime/train/run_options.h"
#include "runtime/train/trainer.h"

namespace tadapt {

/// Captures if need be, then trains to the end or to an agreed stop. The result is the same, bit for bit, for any
/// number of ranks and threads and any number of stops and resumes. Collective.
TrainingOutcome run_training(const RunOptions& options, const RunEnvironment& environment);

/// The same for a caller that goes on when the run cannot: DivergedRun, on every rank.
TrainingOutcome run_or_diverge(const RunOptions& options, const RunEnvironment& environment);

}  // namespace tadapt

// What runs of every objective do alike: make trainees, start or restore them, find out where they stand.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "runtime/train/checkpointing.h"
#include "runtime/train/run_environment.h"
#include "runtime/train/run_options.h"
#include "runtime/train/trainer.h"

namespace tadapt {

/// Where the run stands by its newest checkpoint, without looking at models, corpus or cache. Collective.
TrainingOutcome outcome_so_far(const RunOptions& options, const RunEnvironment& environment);

/// Key of a checkpoint's state: how many steps the run has in all.
inline constexpr char kTotalSteps[] = "steps";

/// A run to be trained, maybe beside others.
struct PlannedRun {
  RunOptions options;
  TrainingOutcome before;  ///< where it stands
};

/// What this rank trains.
struct TraineeRequest {
  std::vector<const RunOptions*> runs;
  std::vector<int> layers;
  std::vector<LocalLoss> losses;  ///< by layer and run, for the local objective; else empty
  std::int64_t width = 0;         ///< D
  AdapterGradients gradients = AdapterGradients::kParameters;
};
/// `group`: the ranks that hold the same layers.
TrainingState make_training_state(const TraineeRequest& request, const RunEnvironment& environment,
                                  const Communicator& group);

/// Puts run number `run` where it stands: restores its checkpoint; without one starts from adapter.init_from or, where
/// that is empty, from the hybrid model. The steps done so far. ConfigError when adapters and run do not fit.
/// Collective.
std::int64_t start_training_state(const PlannedRun& planned, int run, const RunEnvironment& environment,
                                  Checkpointer& checkpointer, TrainingState& state);

/// Rank 0's log of a run that goes on behind `first_step`; null on others. Collective.
std::unique_ptr<MetricsLog> open_metrics_log(const RunOptions& options, const RunEnvironment& environment,
                                             std::int64_t first_step);

/// What every checkpoint says of its run besides what its objective adds.
nlohmann::json common_provenance(const RunOptions& options, const Context& context, std::int64_t steps);

}  // namespace tadapt

#include "runtime/train/train_run.h"

#include <memory>

#include "runtime/loss/loss.h"
#include "runtime/train/agreement.h"
#include "runtime/train/bridging_run.h"
#include "runtime/train/local_run.h"
#include "runtime/train/non_finite_stop.h"
#include "runtime/train/run_directory.h"
#include "runtime/train/run_state.h"

namespace tadapt {

TrainingOutcome run_or_diverge(const RunOptions& options, const RunEnvironment& environment) {
  std::unique_ptr<FileLock> lock;
  on_rank_zero(environment.world, [&] {
    lock = open_run_directory(environment.files, options, environment.who);
    return std::string();
  });
  const TrainingOutcome before = outcome_so_far(options, environment);
  if (before.finished) {
    environment.print(fmt::format("already finished: {} steps", before.step));
    return before;
  }
  return needs_cached_rows_only(find_objective(options.train.objective))
             ? run_local_training({{options, before}}, environment)
             : run_bridging_training(options, environment, before);
}

TrainingOutcome run_training(const RunOptions& options, const RunEnvironment& environment) {
  try {
    return run_or_diverge(options, environment);
  } catch (const DivergedRun& found) {
    fail_non_finite(environment.world, found);
  }
}

}  // namespace tadapt

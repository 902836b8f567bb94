// Trainer: the training loop, whatever the objective: steps, held-out figures, checkpoints, stops.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "runtime/train/background_saves.h"
#include "runtime/train/checkpointing.h"
#include "runtime/train/progress.h"
#include "runtime/train/run_environment.h"
#include "runtime/train/run_options.h"
#include "runtime/train/training_step.h"

namespace tadapt {

/// Why run() returned.
struct TrainingOutcome {
  bool finished = false;  ///< false: a stop was asked for, and the state is saved
  std::int64_t step = 0;
  std::string checkpoint = {};  ///< of the first run
};

/// Where one run's state and metrics go.
struct RunOutput {
  Checkpointer& checkpointer;
  MetricsLog* log;     ///< rank 0's; null elsewhere
  double share = 1.0;  ///< of the features of all runs
};

/// One rank's part of a run, or of several side by side. Everything is owned by others and outlives it.
struct TrainerParts {
  const RunOptions& options;  ///< as far as all runs have them in common
  const RunEnvironment& environment;
  TrainingState& state;
  TrainingStep& step;
  std::vector<RunOutput> outputs;  ///< by run
};

class Trainer {
 public:
  Trainer(TrainerParts parts, std::int64_t total_steps) : parts_(std::move(parts)), total_steps_(total_steps) {}

  /// Trains from `first_step` (steps already done) to the end, or to a stop all ranks agree on. Collective.
  /// DivergedRun, on every rank, when a gradient, a loss, a weight, a moment or a held-out figure is not finite; such a
  /// state is never saved.
  TrainingOutcome run(std::int64_t first_step);

 private:
  void advance(std::int64_t step, TrainingOutcome& outcome, ProgressReport& progress);
  void require_finite_state(std::int64_t step);
  void evaluate(std::int64_t step);
  bool owes_figures(std::int64_t step) const;
  bool has_figures(std::int64_t step);
  enum class MayFail { kNo, kYes };
  std::string save(std::int64_t step);
  void sync_logs();
  void advance_save();
  void attempt(std::int64_t step, MayFail may_fail, const std::function<void()>& save);
  void log_step(const std::vector<StepMetrics>& runs, ProgressReport& progress);
  void log_timing(std::int64_t step, const ProgressReport& progress);
  bool due(std::int64_t step, std::int64_t every) const { return every > 0 && step % every == 0; }

  TrainerParts parts_;
  std::int64_t total_steps_;
  bool stop_ = false;
  std::optional<BackgroundSaves> saves_;
  int failed_saves_ = 0;
  std::int64_t tokens_ = 0;  ///< since run() began
  double checkpoint_seconds_ = 0.0;
};

}  // namespace tadapt

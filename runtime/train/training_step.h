// TrainingStep: what one optimiser step of an objective is, as the training loop sees it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "runtime/optim/adamw_state.h"
#include "runtime/train/metrics.h"
#include "runtime/train/trainee.h"

namespace tadapt {

/// What is trained on this rank: index i of each belongs together. Runs that are trained side by side have a trainee
/// each of every layer; those of a layer are neighbours, in the runs' order.
struct TrainingState {
  std::vector<Trainee> trainees;
  ParameterStore store;
  AdamWState optimiser;
};

class TrainingStep {
 public:
  virtual ~TrainingStep() = default;

  struct Outcome {
    std::vector<StepMetrics> runs;  ///< what each of the runs is told
    bool stop = false;              ///< some rank was asked to stop; the same on all of them
  };
  /// Does step number `step` (from 0) on this rank's part of the state. Collective. DivergedRun, on every rank, when a
  /// gradient or a loss is not finite: then nothing was changed by it that will be saved.
  virtual Outcome run(std::int64_t step) = 0;
  /// Whether an evaluation may be given up when a stop is asked for meanwhile.
  enum class Patience { kUntilStop, kToTheEnd };
  /// Of each run held-out figures after `steps` steps, empty when nothing is held out; nothing, on all ranks, when it
  /// was given up. Collective. DivergedRun.
  virtual std::optional<std::vector<HeldOutFigures>> evaluate(std::int64_t steps, Patience patience) = 0;

  /// What progress and checkpoints count: so many samples a step.
  virtual std::int64_t samples_per_step() const = 0;
  virtual const char* sample_unit() const = 0;  ///< "tokens"
  virtual double data_stall_seconds() const = 0;
  virtual double exchange_stall_seconds() const = 0;  ///< waiting for other ranks
};

}  // namespace tadapt

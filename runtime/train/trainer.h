// Trainer: the training loop of the local objective over one rank's trainees.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "data/activation_source.h"
#include "runtime/comm/communicator.h"
#include "runtime/comm/process_grid.h"
#include "runtime/comm/reduction_tree.h"
#include "runtime/optim/adamw_state.h"
#include "runtime/optim/schedule.h"
#include "runtime/train/batch_upload.h"
#include "runtime/train/checkpointing.h"
#include "runtime/train/held_out.h"
#include "runtime/train/metrics.h"
#include "runtime/train/progress.h"
#include "runtime/train/run_environment.h"
#include "runtime/train/run_options.h"
#include "runtime/train/trainee.h"

namespace tadapt {

/// Why run() returned.
struct TrainingOutcome {
  bool finished = false;  ///< false: a stop was asked for, and the state is saved
  std::int64_t step = 0;
  std::string checkpoint;
};

/// One rank's part of a run. Everything is owned by others and outlives it.
struct TrainerParts {
  Communicator& group;  ///< the ranks that hold the same layers
  const ProcessGrid& grid;
  const RunOptions& options;
  const std::vector<LocalLoss>& losses;  ///< of all trained layers, as grid.layers() lists them
  std::vector<Trainee>& trainees;        ///< this rank's
  ParameterStore& store;
  AdamWState& optimiser;
  ActivationSource& loader;
  HeldOut& held_out;
  Checkpointer& checkpointer;
  MetricsLog* log;  ///< rank 0's; null elsewhere
  const RunEnvironment& environment;
  /// For tests: "backward", "exchange-started", "exchange-joined", "updated", with the trainee's name; may be empty.
  std::function<void(const char* what, const std::string& trainee)> trace = {};
};

class Trainer {
 public:
  Trainer(TrainerParts parts, std::int64_t total_steps);

  /// Trains from `first_step` (steps already done) to the end, or to a stop all ranks agree on. Collective. Throws
  /// NonFiniteError when a gradient, a loss, a weight, a moment or a held-out figure is not finite; such a state is
  /// never saved.
  TrainingOutcome run(std::int64_t first_step);

 private:
  struct Work;  // one trainee's part of a step

  std::int64_t leaves() const;
  bool exchanges() const { return parts_.group.size() > 1; }
  Tensor values(std::size_t index) const;
  void train_step(std::int64_t step, StepMetrics& metrics);
  void backward(std::size_t index, const ActivationBatch& batch, Work& work);
  void update(std::size_t index, std::int64_t step, Work& work);
  void prepare(std::size_t index, Work& work);
  std::vector<double> share(std::int64_t step, const std::vector<Work>& work);
  TraineeMetrics combine(const std::vector<double>& shared, int block, std::size_t place, const LocalLoss& loss) const;
  int bad_tensor(const std::vector<double>& shared, int block, std::size_t place) const;
  int first_non_finite_parameter(std::size_t index, const Tensor& numbers, std::int64_t begin);
  void require_finite(const StepMetrics& metrics, const std::vector<int>& bad_tensors) const;
  void require_finite_state(std::int64_t step);
  std::string non_finite_message(int layer, const std::string& what, std::int64_t step) const;
  [[noreturn]] void fail_non_finite(int layer, const std::string& what, std::int64_t step) const;
  void evaluate(std::int64_t step);
  std::string save(std::int64_t step);
  void log_step(const StepMetrics& metrics, ProgressReport& progress);
  void trace(const char* what, std::size_t index) const;
  bool due(std::int64_t step, std::int64_t every) const { return every > 0 && step % every == 0; }

  TrainerParts parts_;
  std::int64_t total_steps_;
  CosineSchedule schedule_;
  AdamWSettings settings_;
  std::int64_t leaf_tokens_;
  LocalLossPass pass_;
  LeafJoiner joiner_;
  BatchUpload upload_;
  Buffer values_;                   ///< [trainees, leaves, 2] float64: LocalLossValue of each leaf of the step
  std::vector<std::string> names_;  ///< of all trainees of the run, layer after layer
  bool stop_ = false;
  int failed_saves_ = 0;
  double checkpoint_seconds_ = 0.0;
};

}  // namespace tadapt

// LocalStep: one step of the local objective over one rank's trainees, each layer and run by itself.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "data/activation_source.h"
#include "runtime/comm/communicator.h"
#include "runtime/comm/process_grid.h"
#include "runtime/comm/reduction_tree.h"
#include "runtime/optim/schedule.h"
#include "runtime/train/batch_upload.h"
#include "runtime/train/gradient_exchange.h"
#include "runtime/train/held_out.h"
#include "runtime/train/non_finite_stop.h"
#include "runtime/train/run_environment.h"
#include "runtime/train/run_options.h"
#include "runtime/train/training_step.h"

namespace tadapt {

/// One rank's part of a run, or of several side by side. Everything is owned by others and outlives it.
struct LocalStepParts {
  Communicator& group;  ///< the ranks that hold the same layers
  const ProcessGrid& grid;
  const RunOptions& options;             ///< as far as all runs have them in common
  const std::vector<LocalLoss>& losses;  ///< of all trained layers, as grid.layers() lists them, and of each its runs
  TrainingState& state;
  ActivationSource& loader;
  HeldOut& held_out;
  const RunEnvironment& environment;
  /// For tests: "backward", "exchange-started", "exchange-joined", "updated", with the trainee's name; may be empty.
  std::function<void(const char* what, const std::string& trainee)> trace = {};
};

class LocalStep : public TrainingStep {
 public:
  LocalStep(LocalStepParts parts, std::int64_t total_steps);

  Outcome run(std::int64_t step) override;
  std::optional<std::vector<HeldOutFigures>> evaluate(std::int64_t steps, Patience patience) override;
  std::int64_t samples_per_step() const override { return parts_.options.train.batch_tokens; }
  const char* sample_unit() const override { return "tokens"; }
  double data_stall_seconds() const override { return parts_.loader.stall_seconds(); }
  double exchange_stall_seconds() const override { return exchange_.stall_seconds() + sharing_.seconds(); }

  /// Numbers that each rank shares with all at the end of a step, if none has more than so many trainees.
  static std::size_t shared_fields(std::size_t trainees);

 private:
  struct Work;  // one trainee's part of a step

  std::int64_t leaves() const;
  std::size_t runs() const { return parts_.losses.size() / parts_.grid.layers().size(); }
  std::size_t trainees_of_block(int block) const { return parts_.grid.layers_of_block(block).size() * runs(); }
  Tensor values(std::size_t index) const;
  LocalLoss loss_at(LocalLoss loss, std::int64_t step) const;
  const ActivationBatch::Layer& rows_of(std::size_t index, const ActivationBatch& batch);
  void backward(std::size_t index, std::int64_t step, const ActivationBatch::Layer& rows);
  void update(std::size_t index, std::int64_t step, Work& work);
  void prepare(std::size_t index, Work& work);
  std::vector<double> share(std::int64_t step, const std::vector<Work>& work);
  TraineeMetrics combine(const std::vector<double>& shared, int block, std::size_t place, const LocalLoss& loss) const;
  int bad_tensor(const std::vector<double>& shared, int block, std::size_t place) const;
  void require_finite(const TraineeMetrics& metrics, std::size_t trainee, int bad_tensor, std::int64_t steps) const;
  [[noreturn]] void fail(std::size_t trainee, const std::string& what, std::int64_t steps) const;
  void trace(const char* what, std::size_t index) const;

  LocalStepParts parts_;
  CosineSchedule schedule_;
  SparsityRamp ramp_;
  AdamWSettings settings_;
  std::int64_t leaf_tokens_;
  LocalLossPass pass_;
  LeafJoiner joiner_;
  BatchUpload upload_;
  ActivationBatch::Layer rows_;  ///< of the layer being trained
  GradientExchange exchange_;
  StallClock sharing_;              ///< figures of a step
  Buffer values_;                   ///< [trainees, leaves, 2] float64: LocalLossValue of each leaf of the step
  std::vector<std::string> names_;  ///< of all trainees of one run, layer after layer
};

/// The settings that options name.
AdamWSettings adamw_settings(const OptimOptions& options);

}  // namespace tadapt

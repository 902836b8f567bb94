// BridgingStep: one step of the bridging objective over one rank's leaves, all layers together.
#pragma once

#include <string>
#include <vector>

#include "runtime/comm/communicator.h"
#include "runtime/comm/reduction_tree.h"
#include "runtime/optim/schedule.h"
#include "runtime/train/gradient_exchange.h"
#include "runtime/train/run_environment.h"
#include "runtime/train/run_options.h"
#include "runtime/train/sequence_batches.h"
#include "runtime/train/training_step.h"

namespace tadapt {

/// One rank's part of a run. Everything is owned by others and outlives it.
struct BridgingStepParts {
  Communicator& group;  ///< the ranks that share a batch: all of them
  const RunOptions& options;
  TrainingState& state;
  const BridgingModels& models;
  const SequenceBatches& batches;
  std::int64_t leaf_tokens;      ///< the most that a leaf, or a sequence held out, has
  const TokenDataset* held_out;  ///< sequences for held-out figures; null: none
  const RunEnvironment& environment;
};

class BridgingStep : public TrainingStep {
 public:
  BridgingStep(BridgingStepParts parts, std::int64_t total_steps);

  /// DataError when no token of the batch has a next one.
  Outcome run(std::int64_t step) override;
  HeldOutFigures evaluate(std::int64_t steps) override;
  std::int64_t samples_per_step() const override { return parts_.batches.sequences(); }
  const char* sample_unit() const override { return "sequences"; }
  double data_stall_seconds() const override { return 0.0; }

 private:
  struct Work;  // one step

  std::int64_t own_leaves() const { return parts_.batches.leaves() / parts_.group.size(); }
  void backward(Work& work);
  void filled(std::size_t index, bool last_leaf);
  void update(Work& work);
  void share(Work& work);
  StepMetrics combine(const Work& work) const;
  void require_finite(const Work& work, const StepMetrics& metrics);
  std::string diagnose(const Work& work);

  BridgingStepParts parts_;
  CosineSchedule schedule_;
  SparsityRamp ramp_;
  AdamWSettings settings_;
  BridgingWeights weights_;
  BridgingPass pass_;
  AdapterTape adapters_;
  std::vector<LeafJoiner> joiners_;  ///< by trainee
  GradientExchange exchange_;
  std::vector<std::string> names_;
};

}  // namespace tadapt

// BridgingStep: one step of the bridging objective over one rank's leaves, all layers together.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "runtime/comm/communicator.h"
#include "runtime/comm/process_grid.h"
#include "runtime/comm/reduction_tree.h"
#include "runtime/loss/bridging_pass.h"
#include "runtime/optim/schedule.h"
#include "runtime/train/bridging_report.h"
#include "runtime/train/gradient_exchange.h"
#include "runtime/train/grid_link.h"
#include "runtime/train/run_environment.h"
#include "runtime/train/run_options.h"
#include "runtime/train/sequence_batches.h"
#include "runtime/train/training_step.h"

namespace tadapt {

/// What a rank runs of a model of so many layers: those from its block's first trained layer (the first block's from
/// the first) to where the next block's begin, and its half of the branches where two ranks share them.
BridgingPart part_of_rank(const ProcessGrid& grid, int rank, int layers);

/// The adapters' part in that.
AdapterTape::Limits tape_limits(const RunOptions& options, const BridgingMemory& memory, const BridgingPart& part);

/// One rank's part of a run. Everything is owned by others and outlives it.
struct BridgingStepParts {
  Communicator& group;  ///< the ranks that hold the same layers
  GridLink* link;       ///< to the ranks of other layers and branches; null: there are none
  const ProcessGrid& grid;
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
  std::optional<std::vector<HeldOutFigures>> evaluate(std::int64_t steps, Patience patience) override;
  std::int64_t samples_per_step() const override { return parts_.batches.sequences(); }
  const char* sample_unit() const override { return "sequences"; }
  double data_stall_seconds() const override { return 0.0; }
  double exchange_stall_seconds() const override;

 private:
  struct Work;  // one step

  std::int64_t own_leaves() const { return parts_.batches.leaves() / parts_.grid.data_parallel(); }
  std::int64_t first_leaf() const { return parts_.grid.part_of(parts_.environment.world.rank()) * own_leaves(); }
  double sparsity_at(std::int64_t step) const { return weights_.sparsity * ramp_.at(step); }
  void backward(Work& work);
  void filled(std::size_t index, std::int64_t leaf);
  void join(Work& work);
  void update(Work& work);
  BridgingReport share(const Work& work);
  StepMetrics combine(const Work& work, const BridgingReport& report) const;
  void require_finite(const Work& work, const StepMetrics& metrics, const BridgingReport& report);
  std::string diagnose(const Work& work);
  std::vector<TokenBatch> held_out_batches() const;

  BridgingStepParts parts_;
  CosineSchedule schedule_;
  SparsityRamp ramp_;
  AdamWSettings settings_;
  BridgingWeights weights_;
  BridgingPass pass_;
  std::vector<std::unique_ptr<AdapterTape>> tapes_;  ///< one a leaf that is under way
  std::vector<LeafJoiner> joiners_;                  ///< by trainee
  GradientExchange exchange_;
  StallClock sharing_;  ///< figures of a step
  std::vector<TokenBatch> held_out_;
  std::vector<std::string> names_;  ///< of all trainees of the run, layer after layer
};

}  // namespace tadapt

// Checkpointer: between live trainees and the checkpoint format of data/checkpoint.h.
#pragma once

#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "data/checkpoint.h"
#include "runtime/comm/communicator.h"
#include "runtime/comm/process_grid.h"
#include "runtime/optim/adamw_state.h"
#include "runtime/train/trainee.h"

namespace tadapt {

/// Where a run's state goes and what stands beside it.
struct CheckpointPlan {
  std::filesystem::path run_dir;
  std::int64_t keep = 2;
  std::int64_t batch_tokens = 0;
  std::int64_t train_rows = 0;  ///< N: an epoch
  nlohmann::json provenance;    ///< config and its hash, model and cache hashes, instruction set, versions
};

/// Saves and restores a run's trainees: `layer-003.safetensors` (masters) and `layer-003.optimizer.safetensors`
/// (moments, activity counters) per layer, whatever the process grid.
class Checkpointer {
 public:
  Checkpointer(FileSystem& files, Communicator& world, const ProcessGrid& grid, CheckpointPlan plan);

  /// Writes, verifies, then prunes older ones. A failure on any rank fails on all. Collective. Returns the path.
  std::string save(std::int64_t step, std::vector<Trainee>& trainees, const ParameterStore& store,
                   const AdamWState& optimiser);

  /// Puts the newest checkpoint that verifies into this rank's trainees; the step it was taken at, 0 when there is
  /// none. Rejected ones are told to `warn` (rank 0). Collective.
  std::int64_t restore(std::vector<Trainee>& trainees, ParameterStore& store, AdamWState& optimiser,
                       const std::function<void(const std::string&)>& warn);

 private:
  std::vector<PartRecord> write_parts(CheckpointWriter& writer, std::vector<Trainee>& trainees,
                                      const ParameterStore& store, const AdamWState& optimiser) const;
  nlohmann::json state(std::int64_t step) const;
  void require_same_run(const CheckpointInfo& checkpoint, const std::function<void(const std::string&)>& warn) const;

  FileSystem& files_;
  Communicator& world_;
  const ProcessGrid& grid_;
  CheckpointPlan plan_;
};

}  // namespace tadapt

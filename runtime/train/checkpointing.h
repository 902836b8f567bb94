// Checkpointer: between live trainees and the checkpoint format of data/checkpoint.h.
#pragma once

#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "data/checkpoint.h"
#include "runtime/comm/communicator.h"
#include "runtime/train/training_step.h"

namespace tadapt {

using Warn = std::function<void(const std::string& line)>;

/// The run's newest checkpoint that verifies, empty when there are none; the damaged ones are told to `warn` (rank 0).
/// The errors of find_checkpoint(). Collective.
std::filesystem::path newest_checkpoint(FileSystem& files, Communicator& world, const std::filesystem::path& run_dir,
                                        const Warn& warn);

/// Where a run's state goes and what stands beside it.
struct CheckpointPlan {
  std::filesystem::path run_dir;
  int run = 0;  ///< number of the run, among those that are trained side by side
  std::int64_t keep = 2;
  std::int64_t samples_per_step = 0;
  std::int64_t samples_per_epoch = 0;
  nlohmann::json provenance;  ///< config and its hash, steps in all, model and cache hashes, instruction set, …
};

/// Saves and restores the trainees of one run: `layer-003.safetensors` (masters) and `layer-003.optimizer.safetensors`
/// (moments, activity counters) per layer, whatever the process grid and whoever has the moments.
class Checkpointer {
 public:
  /// `group`: the ranks that hold the same layers as this one.
  Checkpointer(Context& context, FileSystem& files, Communicator& world, Communicator& group, CheckpointPlan plan);

  /// Writes, verifies, then prunes older ones. A failure on any rank fails on all. Collective. Returns the path.
  std::string save(std::int64_t step, TrainingState& state);

  /// Puts a checkpoint that verifies into this rank's trainees of the run; the step it was taken at. ConfigError when
  /// it belongs to another run. Collective.
  std::int64_t restore(const std::filesystem::path& checkpoint, TrainingState& state, const Warn& warn);

 private:
  std::vector<std::size_t> own_trainees(const TrainingState& state) const;
  std::vector<PartRecord> write_parts(CheckpointWriter& writer, TrainingState& state) const;
  void restore_moments(const CheckpointPart& part, const ParameterGroup& layout, const AdamWState& optimiser,
                       std::size_t index, const std::string& file) const;
  nlohmann::json description(std::int64_t step) const;
  void require_same_run(const CheckpointInfo& checkpoint, const Warn& warn) const;

  Context& context_;
  FileSystem& files_;
  Communicator& world_;
  Communicator& group_;
  CheckpointPlan plan_;
  std::set<std::filesystem::path> verified_;  // by this process
};

}  // namespace tadapt

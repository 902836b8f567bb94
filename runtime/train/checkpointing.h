// Checkpointer: between live trainees and the checkpoint format of data/checkpoint.h.
#pragma once

#include <exception>
#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <stop_token>
#include <string>
#include <vector>

#include "data/checkpoint.h"
#include "runtime/comm/communicator.h"
#include "runtime/train/state_shards.h"
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

  /// A save in five moves. With Hold::kCopy training may go on as soon as begin() is done.
  /// Makes the folder and takes hold of what this rank writes. Collective.
  void begin(std::int64_t step, TrainingState& state, Hold hold);
  /// Writes it, on any thread; stops between two files when asked to. Keeps its error for gather().
  void write(const std::stop_token& stop);
  /// Everybody's files are written: rank 0 hears of them. A failure on any rank fails on all. Collective.
  void gather();
  /// Rank 0 verifies and publishes, then prunes older ones, on any thread. Keeps its error for conclude().
  void commit();
  /// The checkpoint's path; a failure fails on all ranks. Collective.
  std::string conclude();
  /// All of it at once. Collective.
  std::string save(std::int64_t step, TrainingState& state);

  /// Puts a checkpoint that verifies into this rank's trainees of the run; the step it was taken at. ConfigError when
  /// it belongs to another run. Collective.
  std::int64_t restore(const std::filesystem::path& checkpoint, TrainingState& state, const Warn& warn);

 private:
  /// What this rank writes of one trainee, on the host.
  struct HeldTrainee {
    std::string name;
    int layer;
    ParameterGroup layout;
    WholeMoments moments;
    Buffer memory;  ///< of the masters, unless the store's own serves
    Tensor masters;
    std::vector<std::int64_t> counters;
  };
  struct Save {
    CheckpointWriter writer;
    std::int64_t step;
    std::vector<HeldTrainee> trainees;
    std::vector<PartRecord> records = {};  ///< this rank's; after gather() rank 0 has everybody's
    std::string path = {};
    std::exception_ptr failure = {};
  };
  std::vector<std::size_t> own_trainees(const TrainingState& state) const;
  HeldTrainee hold_trainee(TrainingState& state, std::size_t index, WholeMoments moments, Hold hold) const;
  std::vector<PartRecord> write_trainee(HeldTrainee& trainee);
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
  std::optional<Save> save_;                  // the one under way
};

}  // namespace tadapt

// A run of the bridging objective: all layers end to end through the frozen models.
#pragma once

#include "data/token_dataset.h"
#include "runtime/comm/process_grid.h"
#include "runtime/model/decoder_config.h"
#include "runtime/plan/estimate.h"
#include "runtime/train/run_environment.h"
#include "runtime/train/run_options.h"
#include "runtime/train/trainer.h"

namespace tadapt {

/// What a bridging run is, before models are loaded.
struct BridgingShape {
  DecoderConfig target;
  std::vector<int> layers = {};  ///< trained, ascending
  std::int64_t sequences = 0;
  std::int64_t leaf_tokens = 0;  ///< the most a leaf has, or a sequence held out
  std::int64_t leaves = 1;
  std::int64_t steps = 0;
};

/// Sizes from options, models and corpora. ConfigError when models do not fit together, ranks cannot share a batch, or
/// a sequence is longer than the positions of a model.
BridgingShape bridging_shape(const RunOptions& options, FileSystem& files, const TokenDataset& corpus,
                             const TokenDataset* held_out);
/// The grid asked for, or the one whose step promises to be the shortest; ConfigError when ranks make none.
ProcessGrid bridging_grid(const RunOptions& options, const BridgingShape& shape, int ranks);
/// Of the rank that needs most.
MemoryEstimate bridging_memory(const RunOptions& options, const BridgingShape& shape, const ProcessGrid& grid,
                               Device device);
/// Layers, steps, objective, grid, memory and disk in a few lines.
std::string describe(const RunOptions& options, const BridgingShape& shape, const ProcessGrid& grid, Device device);

/// Goes on from `before`; the run directory is locked. Collective.
TrainingOutcome run_bridging_training(const RunOptions& options, const RunEnvironment& environment,
                                      const TrainingOutcome& before);

}  // namespace tadapt

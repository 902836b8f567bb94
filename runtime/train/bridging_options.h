// What a configuration says of the bridging objective, as the objective takes it.
#pragma once

#include <vector>

#include "runtime/loss/bridging_pass.h"
#include "runtime/train/run_options.h"

namespace tadapt {

/// Weights by the recipe, but for those that are given.
BridgingWeights bridging_weights(const LossOptions& options);

/// The cutoffs of a step: the fixed ones, or drawn.
std::vector<int> cutoffs_of_step(const RunOptions& options, int layers, std::int64_t step);
/// Branches of each kind that a step has at most: cutoffs of which one is a bridge, each once.
int most_bridges(const LossOptions& options, int layers);

/// Leaves of a batch: the largest power of two, at most train.reduction_leaves, that divides train.batch_sequences.
std::int64_t sequence_leaves(const TrainOptions& options);

Recording recording_of(Recompute recompute);

/// ConfigError naming the first option that the objective has no use for, or whose value it cannot take. The number of
/// the model's layers is not looked at.
void require_objective_options(const RunOptions& options);

}  // namespace tadapt

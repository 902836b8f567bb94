// The cost model of a bridging step: what each layer takes, and what that makes of a step on a grid.
#pragma once

#include <optional>
#include <vector>

#include "runtime/comm/process_grid.h"
#include "runtime/model/recorded_segment.h"
#include "runtime/plan/machine_rates.h"

namespace tadapt {

/// Bridges of each kind that run a layer, beside target and adapter model; a mean over steps.
struct LayerBridges {
  double a2r = 0.0;
  double r2a = 0.0;
};

struct BridgingStepWork {
  const DecoderConfig& target;
  const std::vector<int>& layers;     ///< trained, ascending
  std::int64_t leaves = 1;            ///< of the whole batch
  double leaf_tokens = 0.0;           ///< a mean, as the next
  double context_tokens = 0.0;        ///< that a token attends to
  std::vector<LayerBridges> bridges;  ///< by layer of the model
  double heads = 0.0;                 ///< bridges of one kind, a mean over steps
  std::int64_t features = 0;          ///< F
  std::optional<double> active = {};  ///< features per token, by the sparse route; none: the dense one
  Recording recording = Recording::kAll;
};

/// When `bridges` of each kind leave at cutoffs that are uniform over the layers' borders.
std::vector<LayerBridges> uniform_bridges(int layers, int bridges);

/// Seconds of one leaf that fall to the block of each trained layer: the layer's own passes (forwards the target's, the
/// adapter model's and those of the bridges that have left, backwards all of these but the target's), its adapter in
/// the adapter model and r2a (dense 12·D·F, input gradient included), those of the untrained layers that belong to its
/// block, and for the last one the head of every branch.
std::vector<double> layer_seconds(const BridgingStepWork& work, const MachineRates& rates);

/// Seconds of a step's leaves, which go through the blocks one behind the other, as fast as the dearest one. Of two
/// ranks that share the branches the adapter model's has 2L + Σ_k 2(L − k) of 3L + Σ_k 4(L − k) layer passes; L/2 is
/// the mean k.
double leaves_seconds(const BridgingStepWork& work, const std::vector<double>& layer_seconds, GridShape shape);

}  // namespace tadapt

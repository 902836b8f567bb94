// The bridging objective over leaves: value and gradients by the fewest layer passes.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "runtime/loss/bridging_leaf.h"

namespace tadapt {

/// Which layers and branches a rank runs, and how it hears from its neighbours.
struct BridgingStage {
  BridgingPart part;
  StageLink* link = nullptr;  ///< null: there are no others
  int leaves = 1;             ///< that are under way at a time, each with memory of its own
};

/// The target runs once, the adapter model once; a2r leaves the adapter model at its cutoff, r2a the target. a2r's
/// backward comes before the adapter model goes past the last cutoff, so that its records' memory serves again, and
/// what it says of the state at the cutoff enters the one backward of adapter model and r2a, which run side by side.
/// Ranks of neighbouring layers hand each other states and cotangents; with several leaves under way each works on one.
/// Of two ranks with the same layers one runs the target and r2a, the other the adapter model and a2r; the sum of their
/// gradients is the leaf's.
class BridgingPass {
 public:
  /// Everything outlives the pass. All layers on this rank.
  BridgingPass(Context& context, const BridgingModels& models, const BridgingWeights& weights,
               const BridgingMemory& memory);
  BridgingPass(Context& context, const BridgingModels& models, const BridgingWeights& weights,
               const BridgingMemory& memory, const BridgingStage& stage);

  /// What this rank's layers contribute, leaf by leaf: divergences by the rank of the last layer, and so on; 0
  /// elsewhere. Leaves that are under way together need an AdapterTape each. DataError for an id outside the
  /// vocabulary. NaN where a pass gives NaN. Collective over the ranks of the layers.
  std::vector<BridgingValue> run(std::span<const BridgingWork> leaves);
  /// The same of one.
  BridgingValue value_and_gradient(const BridgingWork& leaf) { return run({&leaf, 1}).front(); }

  /// Σ over tokens of the adapter model's divergence: no gradients, no bridges. 0 but for the rank of the last layer.
  double divergence(const TokenBatch& batch, AdapterTape& adapters);

  /// Where target or adapter model first give a number that is not finite: "layer 3: the target's residual state";
  /// empty when they do not.
  std::string first_non_finite(const TokenBatch& batch, AdapterTape& adapters);

  std::int64_t most_tokens() const { return memory_.leaf_tokens; }
  int leaves_under_way() const { return stage_.leaves; }
  const BridgingPart& part() const { return stage_.part; }
  const BridgingMemory& memory() const { return memory_; }
  /// Layers of branches run since construction.
  std::int64_t layer_passes() const { return layer_passes_; }
  /// Bytes of a leaf's memory for models of such a target.
  static std::int64_t bytes(const DecoderConfig& config, const BridgingMemory& memory, const BridgingPart& part);

 private:
  std::unique_ptr<BridgingLeaf> begin(std::size_t place, const BridgingWork& work, const BridgingWeights& weights);
  void choose_mlps(const AdapterTape& adapters);

  Context& context_;
  BridgingModels models_;
  BridgingWeights weights_;
  BridgingMemory memory_;
  BridgingStage stage_;
  Workspace workspace_;
  HeadLosses head_;
  std::vector<std::unique_ptr<LeafMemory>> leaves_;
  std::vector<MlpSource> target_mlps_, adapter_mlps_;
  std::int64_t layer_passes_ = 0;
};

}  // namespace tadapt

// The bridging objective over one leaf: value and gradients by the fewest layer passes.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "runtime/loss/adapter_tape.h"
#include "runtime/loss/bridging_schedule.h"
#include "runtime/loss/head_losses.h"
#include "runtime/loss/residual_nmse.h"
#include "runtime/model/recorded_segment.h"

namespace tadapt {

/// With y the target's next-token distribution, h and ĥ the residual states of target and adapter model:
///   kl_adapter · KL(y ‖ adapter) + kl_bridge · mean_k [KL(y ‖ a2r_k) + KL(y ‖ r2a_k)] + residual_nmse · NMSE(ĥ, h)
///     + label · mean −log q_adapter(next token) + sparsity · Σ_ℓ mean_t Σ_i a_ti ‖W_dec,ℓ,i‖₂
/// Divergences: forward, next-token shifted, means over all positions that have a next token; sparsity: mean over all
/// tokens. For NMSE see ResidualNmse. Source: Hu et al., "Transcoder Adapters for Reasoning-Model Diffing", 2026.
struct BridgingWeights {
  double kl_adapter = 1.0;
  double kl_bridge = 2.0;
  double residual_nmse = 1.0;
  OverStates nmse_over_states = OverStates::kMean;
  double label = 0.0;
  double sparsity = 0.0;  ///< at full weight
};

/// What the means of a global batch are over.
struct BatchCounts {
  std::int64_t tokens = 0;
  std::int64_t labels = 0;  ///< tokens that have a next one
  std::int64_t sequences = 0;
};
BatchCounts counts_of(const TokenBatch& batch);

/// What one leaf contributes; adds over leaves in the reduction tree's order.
struct BridgingValue {
  double kl_adapter = 0.0;  ///< Σ over tokens
  double kl_a2r = 0.0;      ///< Σ over tokens, shares of the cutoffs as weights
  double kl_r2a = 0.0;
  double label = 0.0;
  double residual_nmse = 0.0;                ///< Σ over sequences
  std::vector<double> weighted_activations;  ///< by adapter: Σ_t Σ_i a_ti ‖W_dec,i‖₂
};

/// The frozen models.
struct BridgingModels {
  const Decoder& pair;   ///< the target with the base's MLPs beside, loaded for both directions
  const Decoder* trunk;  ///< the base's trunk with its MLPs, for Backbone::kBase; null: the target's trunk
  Backbone backbone() const { return trunk == nullptr ? Backbone::kTarget : Backbone::kBase; }
};

/// How a pass uses memory.
struct BridgingMemory {
  std::int64_t leaf_tokens = 0;  ///< the most a leaf has
  int cutoffs = 1;               ///< the most a step has
  Recording recording = Recording::kAll;
  std::int64_t logits_budget_bytes = std::int64_t{256} << 20;
};

/// The target runs once, the adapter model once; a2r leaves the adapter model at its cutoff, r2a the target. a2r's
/// backward comes before the adapter model goes past the last cutoff, so that its records' memory serves again, and
/// what it says of the state at the cutoff enters the one backward of adapter model and r2a, which run side by side.
class BridgingPass {
 public:
  BridgingPass(Context& context, const BridgingModels& models, const BridgingWeights& weights,
               const BridgingMemory& memory);

  struct Leaf {
    const TokenBatch& batch;  ///< sequences of this leaf
    std::span<const int> cutoffs;
    BatchCounts whole;  ///< of the global batch
    double sparsity;    ///< the weight, as it is at this step
    AdapterTape& adapters;
    struct Gradients {
      std::function<Tensor(std::size_t index)> slot;  ///< as AdapterTape::Leaf has them
      std::function<void(std::size_t index)> filled;
    } gradients;
  };
  /// DataError for an id outside the vocabulary. NaN where a pass gives NaN.
  BridgingValue value_and_gradient(Context& context, const Leaf& leaf);

  /// The adapter model's divergence alone: no gradients, no bridges, nothing else filled in.
  BridgingValue evaluate(Context& context, const TokenBatch& batch, AdapterTape& adapters);

  /// Where target or adapter model first give a number that is not finite: "layer 3: the target's residual state";
  /// empty when they do not.
  std::string first_non_finite(Context& context, const TokenBatch& batch, AdapterTape& adapters);

  std::int64_t most_tokens() const { return limits_.leaf_tokens; }
  /// Layers of branches run since construction.
  std::int64_t layer_passes() const { return memory_.layer_passes; }
  /// Bytes of the arena for models of such a target.
  static std::int64_t bytes(const DecoderConfig& config, const BridgingMemory& memory);

 private:
  struct Run;  // one call
  static Leaf forwards_only(const TokenBatch& batch, std::span<const int> cutoffs, AdapterTape& adapters);
  void begin(Context& context, const TokenBatch& batch, const AdapterTape& adapters, int branches);
  const Decoder& adapter_trunk() const { return models_.trunk != nullptr ? *models_.trunk : models_.pair; }
  SegmentPlan plan(AdapterTape* adapters, int begin, int end, Recording recording) const;

  BridgingModels models_;
  BridgingWeights weights_;
  BridgingMemory limits_;
  PassMemory memory_;
  BranchTokens tokens_;
  HeadLosses head_;
  ResidualNmse nmse_;
  std::vector<MlpSource> target_mlps_, adapter_mlps_;
  Buffer weighted_activations_;
};

}  // namespace tadapt

// The bridging objective in numbers: its weights, what it is a mean over, what it runs on, what a leaf contributes.
#pragma once

#include <cstdint>
#include <vector>

#include "runtime/loss/bridging_schedule.h"
#include "runtime/loss/residual_nmse.h"
#include "runtime/model/decoder.h"
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
  std::vector<double> residual_nmse;  ///< by residual state: Σ over sequences, as ResidualNmse::by_state has them
  std::vector<double> weighted_activations;  ///< by adapter: Σ_t Σ_i a_ti ‖W_dec,i‖₂
};

/// The frozen models.
struct BridgingModels {
  const Decoder& pair;   ///< the target with the base's MLPs beside, loaded for both directions
  const Decoder* trunk;  ///< the base's trunk with its MLPs, for Backbone::kBase; null: the target's trunk
  const Decoder& adapter_trunk() const { return trunk != nullptr ? *trunk : pair; }
  Backbone backbone() const { return trunk == nullptr ? Backbone::kTarget : Backbone::kBase; }
};

/// Of the branches of a step, those that a rank runs: the target's own pass and r2a, which leaves it; the adapter
/// model's and a2r, which leaves that; or all.
enum class BranchSide : std::uint8_t { kBoth, kTarget, kAdapter };

/// Of a step, what a rank runs.
struct BridgingPart {
  LayerSpan layers;
  BranchSide side = BranchSide::kBoth;
  bool runs_target() const { return side != BranchSide::kAdapter; }
  bool runs_adapter() const { return side != BranchSide::kTarget; }
};

/// How a pass uses memory.
struct BridgingMemory {
  std::int64_t leaf_tokens = 0;  ///< the most a leaf has
  int cutoffs = 1;               ///< the most a step has
  Recording recording = Recording::kAll;
  std::int64_t logits_budget_bytes = std::int64_t{256} << 20;
};

}  // namespace tadapt

// Faithfulness: how close base, hybrid and adapter model come to the target, token by token and layer by layer.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "data/token_dataset.h"
#include "runtime/comm/communicator.h"
#include "runtime/eval/adapter_set.h"
#include "runtime/model/decoder.h"

namespace tadapt {

/// Sums over a set of predicted tokens; adds up in any grouping because it is kept per sequence until the end.
struct Agreement {
  double tokens = 0.0;
  double kl = 0.0;             ///< Σ KL(target ‖ model), nats
  double disagreements = 0.0;  ///< Σ [argmax differs]

  double mean_kl() const { return kl / tokens; }
  double disagreement() const { return disagreements / tokens; }
  Agreement& operator+=(const Agreement& other);
};

/// One model against the target. A position counts when it has a next token; `response` are those whose next token
/// belongs to the response, `uncertain` those of them where the target's top probability is at most 0.8.
struct ModelAgreement {
  std::string name;
  Agreement all, response, uncertain;
};

/// One layer of the adapter model.
struct LayerFaithfulness {
  int layer = 0;
  double delta_nmse = 0.0;  ///< Σ‖Δ − T(x)‖² / Σ‖Δ‖² at the target's own MLP inputs
  double l0 = 0.0;          ///< active features per token in the adapter model's own pass
  double dead_share = 0.0;  ///< features active on no token of the corpus
};

struct FaithfulnessReport {
  std::int64_t sequences = 0;
  std::int64_t tokens = 0;                   ///< over which features count as dead
  std::string base_refusal;                  ///< why there is no base row; empty when there is one
  std::vector<ModelAgreement> models;        ///< base, hybrid, adapter, target
  std::vector<double> hybrid_residual_nmse;  ///< [L+1]: mean (ĥ−h)² / (mean h² + 1e-8) over tokens and D
  std::vector<double> adapter_residual_nmse;
  std::vector<LayerFaithfulness> layers;  ///< layers that have an adapter
  std::vector<ModelAgreement> partial;    ///< "only layer k", "first k", "last k"
  double mean_l0() const;
};

struct FaithfulnessOptions {
  enum class Partial { kNone, kAll };
  Partial partial = Partial::kAll;
  std::int64_t batch_tokens = 4096;  ///< tokens packed into one pass (a longer sequence goes alone)
  std::size_t logits_budget_bytes = 256u << 20;
  std::function<bool()> stop_requested;  ///< a stop throws Error with exit code 75
  std::function<void(std::int64_t sequences_done)> progress;
};

/// What is compared. Layers without an adapter run the target's own MLP in the adapter model: it then shows the trained
/// layers alone.
struct FaithfulnessModels {
  const Decoder& pair;  ///< target with base MLPs beside
  const Decoder* base;  ///< null: no base row
  std::string base_refusal;
  AdapterSet& adapters;
};

/// Runs every sequence of `corpus` through all models; ranks share the sequences. The same numbers on every rank, for
/// any rank count and batch size. Collective. NonFiniteError naming line of the corpus and place in the models when a
/// number is not finite.
FaithfulnessReport evaluate_faithfulness(Context& context, Communicator& world, const FaithfulnessModels& models,
                                         const TokenDataset& corpus, const FaithfulnessOptions& options);

}  // namespace tadapt

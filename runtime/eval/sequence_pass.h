// SequencePass: one batch of sequences through all models that are compared, and the sums each sequence leaves.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "runtime/eval/faithfulness.h"
#include "runtime/model/segments.h"

namespace tadapt {

/// Where a sequence's sums stand in its row of doubles.
struct SequenceFields {
  static constexpr std::size_t kPerModel = 9;  ///< {tokens, kl, disagreements} of all, response, uncertain
  static constexpr std::size_t kPerState = 3;  ///< Σ‖h‖², Σ‖h_hybrid − h‖², Σ‖h_adapter − h‖²
  static constexpr std::size_t kPerLayer = 3;  ///< Σ‖Δ − T‖², Σ‖Δ‖², active (token, feature) pairs

  std::vector<std::string> models;  ///< compared with the target: main ones, then partial replacements
  std::size_t main_models = 0;
  std::size_t states = 0;   ///< L + 1
  std::vector<int> layers;  ///< that have an adapter
  std::int64_t width = 0;   ///< D

  std::size_t agreement(std::size_t model) const { return model * kPerModel; }
  std::size_t state(std::size_t state) const { return models.size() * kPerModel + state * kPerState; }
  std::size_t layer(std::size_t place) const { return state(states) + place * kPerLayer; }
  std::size_t count() const { return layer(layers.size()); }
  /// The fields that are sums of one number a token: those of states and layers, from here to the end.
  std::size_t first_of_rows() const { return state(0); }
  /// What in a sequence's sums is not finite, the earliest place of the models' passes first; empty when all are.
  std::string non_finite(std::span<const double> sums) const;
};

class SequencePass {
 public:
  SequencePass(Context& context, const FaithfulnessModels& models, const FaithfulnessOptions& options);

  const SequenceFields& fields() const { return fields_; }
  /// Sums of each sequence of the batch, fields().count() doubles each. `response_starts`: index of each sequence's
  /// first response token.
  std::vector<double> run(const TokenBatch& batch, const std::vector<std::int64_t>& response_starts);
  /// Per layer with an adapter and feature: on how many tokens of this rank it was active so far.
  const std::vector<std::vector<double>>& active_tokens() const { return active_; }

 private:
  struct Batch;  // one call of run()

  void compare_models(Batch& work);
  void compare_states(Batch& work, const ResidualStates& states);
  void compare_logits(Batch& work, const std::vector<LogitsSource>& sources, std::size_t first_model);
  void compare_partial(Batch& work, const Tensor& target_final);
  void measure_delta(Batch& work, int layer, const Tensor& target_mlp_out);
  void count_active(Batch& work, int layer, const Tensor& activations);
  void add_rows(Batch& work);
  std::size_t place_of(int layer) const;

  Context& context_;
  const FaithfulnessModels& models_;
  const FaithfulnessOptions& options_;
  SequenceFields fields_;
  Splice target_, hybrid_, adapter_;
  SegmentRunner runner_;
  Workspace workspace_;
  std::vector<Buffer> batch_active_;  ///< of one batch, where the context computes: [F] float32 a layer
  std::vector<std::vector<double>> active_;
};

}  // namespace tadapt

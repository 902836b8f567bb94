// PromptRecord: one forward of the adapter model over a prompt, with what attribution's backwards read of it.
#pragma once

#include <vector>

#include "runtime/analysis/attribution_model.h"
#include "runtime/model/arena.h"

namespace tadapt {

/// What attribution adds up contributions to: the pre-activation of an active feature, or a logit above the mean logit.
struct AttributionTarget {
  int layer = 0;              ///< L: a logit
  std::int32_t position = 0;  ///< of the token
  std::int32_t id = 0;        ///< the feature, or the logit's token
  double value = 0.0;         ///< what there is to attribute
  double probability = 0.0;   ///< a logit's
  std::int32_t pair = 0;      ///< a feature's: its place among the layer's active pairs
};

/// Logits that graphs explain: the most probable ones, until `mass` is reached, at most `most`.
struct LogitChoice {
  int most = 10;
  double mass = 0.95;
};

/// Device memory of one prompt after another.
class PromptMemory {
 public:
  explicit PromptMemory(Device device) : workspace(device), records(device) {}
  Workspace workspace;
  Arena records;
  TokenMemory tokens;
};

class PromptRecord {
 public:
  struct Layer {
    Tensor before;              ///< [T, D] residual state entering the layer
    AttentionRecord attention;  ///< without what was attended
    Tensor middle;              ///< [T, D] residual state after attention
    MlpRecord mlp;
    SparseFeatures active;  ///< where attribution computes; nothing where there is no adapter
    // The same on the host.
    std::vector<std::int32_t> offsets;    ///< [T + 1]
    std::vector<std::int32_t> features;   ///< [P]
    std::vector<std::int32_t> positions;  ///< [P]
    std::vector<float> activations;       ///< [P]
    std::int32_t pairs() const { return static_cast<std::int32_t>(features.size()); }
  };

  /// Runs the model over one sequence. NonFiniteError when its logits are not finite.
  PromptRecord(Context& context, AttributionModel& model, PromptMemory& memory, std::span<const std::int32_t> ids);
  ~PromptRecord() { memory_.records.release(0); }
  PromptRecord(const PromptRecord&) = delete;
  PromptRecord& operator=(const PromptRecord&) = delete;

  std::int64_t tokens() const { return batch_.tokens(); }
  const std::vector<std::int32_t>& ids() const { return batch_.ids; }
  const std::vector<Layer>& layers() const { return layers_; }
  const Tensor& embeddings() const { return layers_.front().before; }
  const Tensor& last_state() const { return last_state_; }  ///< [T, D]
  /// Active pairs of layers before `layer`.
  std::int64_t pairs_before(int layer) const { return first_pair_[static_cast<std::size_t>(layer)]; }
  std::int64_t pairs() const { return first_pair_.back(); }

  AttributionTarget feature_target(int layer, std::int32_t pair) const;
  /// Targets of the prediction after the last token, the most probable first (of equals the lower id).
  std::vector<AttributionTarget> logit_targets(const LogitChoice& choice) const;

  /// Device bytes of one of so many tokens, without its active pairs.
  static std::int64_t bytes(const DecoderConfig& config, std::int64_t tokens, std::int64_t most_features);

 private:
  Layer take_layer(const DecoderConfig& config);
  void run_layer(Context& context, AttributionModel& model, int layer, const Tensor& after);
  void keep_active(Context& context, const Tensor& activations, Layer& layer);

  PromptMemory& memory_;
  TokenBatch batch_;
  std::vector<Layer> layers_;
  std::vector<Buffer> pair_memory_;
  std::vector<std::int64_t> first_pair_{0};
  Tensor last_state_;
  std::vector<float> logits_;  ///< [V] after the last token
};

}  // namespace tadapt

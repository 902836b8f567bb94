// AttributionPass: contributions to many targets at once, backwards through the adapter model linearised at a prompt.
#pragma once

#include <functional>

#include "runtime/analysis/mlp_maps.h"

namespace tadapt {

/// What a target's value is made of: the contributions below, biases, and what comes in at the first position, whose
/// features and token are no nodes. Together they are the value, but for rounding.
struct Contributions {
  AttributionTarget target;
  /// Of each layer below that has features, in order: its active pairs at positions 1 to the target's, as they are
  /// recorded.
  std::vector<float> features;
  std::vector<float> tokens;  ///< of the tokens at positions 1 to the target's
  double sum = 0.0;           ///< of both
  double biases = 0.0;        ///< decoders', values', and the feature's own
  double first_position = 0.0;
  double residual() const { return target.value - sum - biases - first_position; }
};

/// One per prompt. The model, the record and the maps must outlive it.
class AttributionPass {
 public:
  /// `maps`: of this record; null: every row goes through the MLPs themselves. Either way gives the same to rounding.
  AttributionPass(Context& context, const AttributionModel& model, PromptMemory& memory, const PromptRecord& record,
                  const MlpMaps* maps = nullptr);

  const PromptRecord& record() const { return record_; }
  /// `targets`: later layers first. A target's numbers are its own: they do not depend on the others (on the CPU to the
  /// last bit). Calls `on_layer` after every layer; what it throws goes through.
  std::vector<Contributions> run(std::span<const AttributionTarget> targets, const std::function<void()>& on_layer);

  /// Device bytes of batches of so many targets of prompts of so many tokens, without the numbers that come out.
  static std::int64_t bytes(const DecoderConfig& config, std::int64_t targets, std::int64_t tokens);

 private:
  Context& context_;
  const AttributionModel& model_;
  PromptMemory& memory_;
  const PromptRecord& record_;
  const MlpMaps* maps_;
  Buffer counting_, zeros_, ones_;
};

}  // namespace tadapt

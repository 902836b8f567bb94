// MlpMaps: the MLP blocks of a prompt's lowest layers, linearised, as one matrix a position.
#pragma once

#include "kernels/position_maps.h"
#include "runtime/analysis/prompt_record.h"

namespace tadapt {

/// Linearised at a prompt, the MLP between two residual states of a token is a matrix. With a = ½·up·σ(gate),
/// b = ½·gate·σ(gate), γ the weights of the norm before it and r its scale, a cotangent c of the state after it adds
/// c·M to that of the state before it:
///   M_t = W_down · (diag(a_t)·W_gate + diag(b_t)·W_up) · diag(γ·r_t)                        [D, D]
/// Making it costs about D/3 times as much as passing one row through the MLP, using it D/(3·d_ff) times: it pays where
/// many targets see a position. Most do so in the lowest layers, so those come first.
class MlpMaps {
 public:
  /// Layers from the lowest on whose maps `targets` features of this prompt pay for, in no more than `most_bytes`.
  static int layers_that_pay(const DecoderConfig& config, const PromptRecord& record, std::int64_t targets,
                             std::int64_t most_bytes);
  /// Bytes, where attribution computes, of the most maps that layers_that_pay allows; and while they are made.
  static std::int64_t bytes(const DecoderConfig& config, std::int64_t tokens, std::int64_t most_bytes);

  /// Calls `on_layer` after every layer; what it throws goes through.
  MlpMaps(Context& context, const AttributionModel& model, const PromptRecord& record, int layers,
          const std::function<void()>& on_layer);

  int layers() const { return layers_; }
  /// [T, D, D] of a layer below layers().
  Tensor of(int layer) const { return maps_.tensor().rows(layer * tokens_, (layer + 1) * tokens_); }

 private:
  void make(Context& context, const AttributionModel& model, const PromptRecord::Layer& record, int layer);

  int layers_;
  std::int64_t tokens_;
  Buffer maps_;  ///< [layers · T, D, D]
};

}  // namespace tadapt

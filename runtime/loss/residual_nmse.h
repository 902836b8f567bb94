// ResidualNmse: how far the adapter model's residual states are from the target's, as a loss.
#pragma once

#include <vector>

#include "kernels/core/context.h"
#include "runtime/model/token_batch.h"

namespace tadapt {

/// Whether a sequence's errors of the L + 1 states are averaged (the authors' code) or summed (their paper).
enum class OverStates : std::uint8_t { kMean, kSum };

/// Σ over sequences s of mean_ℓ or Σ_ℓ of  mean((ĥ − h)²) / (mean(h²) + 1e-8),  means over the sequence's tokens and D;
/// ℓ runs over all L + 1 residual states. One batch at a time:
///   begin; observe the target's states; ready; add the cotangents of the adapter model's; then value.
class ResidualNmse {
 public:
  ResidualNmse(int states, OverStates over) : states_(states), over_(over) {}

  void begin(Context& context, const TokenBatch& batch);
  /// h of one state, [T, D] float32.
  void observe_target(Context& context, int state, const Tensor& values);
  /// All states are observed; `scale` is the factor of the value in the loss. Waits for the device.
  void ready(Context& context, double scale);
  /// With ĥ and h of one state [T, D]: cotangent [T, D] += dL/dĥ.
  void add_cotangent(Context& context, int state, const Tensor& predicted, const Tensor& target,
                     const Tensor& cotangent);
  /// Of each state, Σ over the batch's sequences of its part of the value; 0 where nothing was observed. All cotangents
  /// are added. Waits for the device.
  std::vector<double> by_state(Context& context) const;

 private:
  /// Mean over a sequence's tokens and D of what was summed for (state, sequence).
  double mean(const std::vector<double>& sums, std::size_t place) const;
  double states_weight() const { return over_ == OverStates::kMean ? 1.0 / states_ : 1.0; }
  std::size_t place(int state, int sequence) const;
  /// One number per sequence from one per row.
  void total_by_sequence(Context& context, int state, const Buffer& totals) const;

  int states_;
  OverStates over_;
  std::int64_t width_ = 0;
  std::vector<std::int32_t> offsets_{0};
  double scale_ = 0.0;
  Buffer rows_;              // [T] float64
  Buffer squares_, errors_;  // [states · sequences] float64
  std::vector<double> target_squares_;
};

}  // namespace tadapt

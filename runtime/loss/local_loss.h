// The local objective of one layer: normalised squared error of the transcoder plus its sparsity.
#pragma once

#include <cstdint>

#include "kernels/core/context.h"
#include "runtime/adapter/adapter.h"

namespace tadapt {

///   L = mean_t ‖Δ_t − T(x_t)‖² / s²  +  λ · mean_t Σ_i a_ti ‖W_dec,i‖₂ · c,    c = 1/s (relative) or 1 (absolute)
/// with means over the tokens of the GLOBAL batch, so that leaves' values and gradients simply add.
struct LocalLoss {
  double delta_scale = 1.0;       ///< s > 0, stored with the cache
  double sparsity = 0.0;          ///< λ · c
  std::int64_t batch_tokens = 1;  ///< tokens of the global batch

  /// Factor of (T(x) − Δ) in the cotangent dL/dT.
  double cotangent_scale() const { return 2.0 / (delta_scale * delta_scale * static_cast<double>(batch_tokens)); }
  /// Factor of Σ_t Σ_i a ‖W_dec,i‖ in L.
  double sparsity_scale() const { return sparsity / static_cast<double>(batch_tokens); }
};

/// What one leaf contributes; adds over leaves in the reduction tree's order.
struct LocalLossValue {
  double square_error = 0.0;          ///< Σ_t ‖Δ_t − T(x_t)‖²
  double weighted_activations = 0.0;  ///< Σ_t Σ_i a_ti ‖W_dec,i‖₂
};

/// Forward and backward of one adapter over leaves of tokens, with the scratch both need.
class LocalLossPass {
 public:
  /// The largest leaf and adapter that will come.
  struct Limits {
    std::int64_t tokens = 0;
    AdapterShape shape;
    double sparse_below = 0.0;  ///< AdapterCompute's
  };
  LocalLossPass(Device device, const Limits& limits);

  /// One leaf of tokens and where its gradient goes.
  struct Leaf {
    Adapter& adapter;
    const LocalLoss& loss;
    const Tensor& x;      ///< [T,D], fp32 or bf16
    const Tensor& delta;  ///< as x
    const ParameterTensors& masters;
    const ParameterGroup& group;
    const Tensor& gradient;  ///< laid out as `group`; overwritten, statistics included
    const Tensor& value;     ///< [2] float64, overwritten: LocalLossValue's numbers in its order
  };
  /// Value and gradients of the loss over the leaf's rows; all tensors on the context's device.
  void value_and_gradient(Context& context, const Leaf& leaf);

  /// Σ_t ‖Δ_t − T(x_t)‖², Σ_t ‖Δ_t‖² and the number of active (token, feature) pairs; nothing is trained. x and delta
  /// may lie on the host.
  struct Evaluation {
    double square_error = 0.0;
    double delta_square = 0.0;
    std::int64_t active = 0;
  };
  Evaluation evaluate(Context& context, const Adapter& adapter, const Tensor& x, const Tensor& delta);

 private:
  FeatureRecord record_;
  AdapterScratch scratch_;
  Buffer output_, row_errors_, active_, sums_;
};

}  // namespace tadapt

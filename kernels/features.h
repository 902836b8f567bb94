// What is particular to sparse adapters: decoder norms, the sparsity term's gradients, counts of active features.
// Encoder and decoder weights are both [F, D] here: row i belongs to feature i. A feature is active where a > 0.
#pragma once

#include "kernels/core/backends.h"

namespace tadapt {

/// Gradient with respect to a pre-activation, through ReLU and the sparsity term: 0 where the feature is not active.
struct FeatureGradient {
  float coefficient;
  TADAPT_HOST_DEVICE float operator()(float activation, float norm, float gradient) const {
    return activation > 0.0f ? gradient + coefficient * norm : 0.0f;
  }
};

TADAPT_BACKENDS(void decoder_norms(Context& context, const Tensor& decoder, const Tensor& norms);
                void weighted_activations(Context& context, const Tensor& activation_sums, const Tensor& norms,
                                          const Tensor& total);
                void feature_gradient(Context& context, const Tensor& activations, const Tensor& norms,
                                      float coefficient, const Tensor& gradient);
                void sparsity_decoder_gradient(Context& context, const Tensor& activation_sums, const Tensor& decoder,
                                               const Tensor& norms, float coefficient, const Tensor& gradient);
                void column_sums(Context& context, const Tensor& x, const Tensor& sums);
                void active_counts(Context& context, const Tensor& activations, const Tensor& counts);
                void l0(Context& context, const Tensor& activations, const Tensor& counts);)

/// norms_i = ‖decoder_i‖₂
///   decoder  [F, D] float32, read only
///   norms    [F] float32, overwritten
/// Squares are summed in double in a fixed order.
void decoder_norms(Context& context, const Tensor& decoder, const Tensor& norms);

/// total = Σ_i activation_sums_i · norms_i = Σ_ti a_ti ‖W_dec,i‖₂
///   activation_sums, norms  [F] float32, read only
///   total                   [1] float64, overwritten
/// Products and sum in double in a fixed order: on the CPU first to last, on a GPU by its threads' strides.
void weighted_activations(Context& context, const Tensor& activation_sums, const Tensor& norms, const Tensor& total);

/// gradient_ti = a_ti > 0 ? gradient_ti + coefficient · norms_i : 0
///   activations  [T, F] float32, read only
///   norms        [F] float32, read only
///   gradient     [T, F] float32: in, dL/da without the sparsity term; out, dL/d(pre-activation); in place
/// This is d/da of coefficient · Σ_ti a_ti ‖W_dec,i‖₂, joined with ReLU's. Oracle: finite differences in double.
void feature_gradient(Context& context, const Tensor& activations, const Tensor& norms, float coefficient,
                      const Tensor& gradient);

/// gradient_i += coefficient · activation_sums_i · decoder_i / norms_i, and nothing where norms_i or activation_sums_i
/// is 0
///   activation_sums  [F] float32, Σ_t a_ti, read only
///   decoder          [F, D] float32, read only
///   norms            [F] float32, as decoder_norms gives them, read only
///   gradient         [F, D] float32, accumulated into
/// This is d/dW_dec of coefficient · Σ_ti a_ti ‖W_dec,i‖₂; the subgradient at 0 is 0. Oracle: finite differences.
void sparsity_decoder_gradient(Context& context, const Tensor& activation_sums, const Tensor& decoder,
                               const Tensor& norms, float coefficient, const Tensor& gradient);

/// sums_n = Σ_t x_tn
///   x     [T, N] float32 or bfloat16, read only
///   sums  [N] float32, overwritten (zero when T = 0)
/// Summed in double, first token to last.
void column_sums(Context& context, const Tensor& x, const Tensor& sums);

/// counts_i = number of tokens on which feature i is active
///   activations  [T, F] float32, read only
///   counts       [F] float32, overwritten; exact up to 2^24 tokens, more are refused with ShapeError
void active_counts(Context& context, const Tensor& activations, const Tensor& counts);

/// counts_t = number of features active on token t (its L0)
///   activations  [T, F] float32, read only
///   counts       [T] int32, overwritten
void l0(Context& context, const Tensor& activations, const Tensor& counts);

}  // namespace tadapt

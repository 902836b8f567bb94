// Root-mean-square normalisation and its gradient.
#pragma once

#include "kernels/core/backends.h"
#include "kernels/core/linearisation.h"

namespace tadapt {

/// What a normalisation read.
struct RmsNormInput {
  Tensor x;       ///< [T, D] float32
  Tensor weight;  ///< [D] float32
  float epsilon;
};

/// scale · weighted − shrink · x, where weighted = weight · cotangent
struct RmsNormGradient {
  float scale;   ///< 1/√(mean x² + epsilon)
  float shrink;  ///< scale³ · mean(x · weighted); 0 where the scale counts as constant
  TADAPT_HOST_DEVICE float operator()(float x, float weight, float cotangent) const {
    return scale * (weight * cotangent) - shrink * x;
  }
};

TADAPT_BACKENDS(void rms_norm(Context& context, const Tensor& x, const Tensor& weight, float epsilon, const Tensor& y);
                void rms_norm_backward(Context& context, const RmsNormInput& input, const Tensor& cotangent,
                                       Linearisation linearisation, const Tensor& gradient);)

/// y_td = weight_d · (x_td · 1/√(mean_d x_td² + epsilon))
///   x       [T, D] float32, read only
///   weight  [D] float32, read only
///   y       [T, D] float32, overwritten; may be x itself
/// The mean of squares is summed in double in a fixed order; a row depends on itself only.
/// Source: Zhang & Sennrich, "Root Mean Square Layer Normalization", 2019. Oracle: the formula in double.
void rms_norm(Context& context, const Tensor& x, const Tensor& weight, float epsilon, const Tensor& y);

/// With s_t = 1/√(mean_d x_td² + epsilon) and g = weight · cotangent:
///   gradient_td += s_t · g_td − s_t³ · x_td · mean_d(x_td · g_td)    kExact
///   gradient_td += s_t · g_td                                        kRelp: s_t is a constant
///   input      as rms_norm read it (x before it, should y have been x), read only
///   cotangent  [T, D] float32, dL/dy, read only
///   gradient   [T, D] float32, accumulated into: the residual stream carries x on as well, and what comes back along
///              it is there already; must not overlap the others
/// Sums in double in a fixed order; a row depends on itself only. Oracle: finite differences in double.
void rms_norm_backward(Context& context, const RmsNormInput& input, const Tensor& cotangent,
                       Linearisation linearisation, const Tensor& gradient);

}  // namespace tadapt

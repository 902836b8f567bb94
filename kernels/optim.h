// The optimiser's step, and what is asked of gradients before it.
#pragma once

#include <cmath>

#include "kernels/core/backends.h"

namespace tadapt {

/// Elements that share one partial sum; borders of shards lie on multiples of it.
inline constexpr std::int64_t kSumBlock = 4096;

/// Blocks of kSumBlock elements in n elements, the last one counted even if short.
inline constexpr std::int64_t sum_blocks(std::int64_t n) { return (n + kSumBlock - 1) / kSumBlock; }

struct AdamWStep {
  double learning_rate = 0;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double epsilon = 1e-8;
  double weight_decay = 0;
  std::int64_t step = 1;      ///< 1 for the first
  double gradient_scale = 1;  ///< multiplies the gradient first: the clipping factor, or 1/tokens
};

/// What AdamW reads and writes; n elements each, any one shape.
struct AdamWTensors {
  Tensor master;         ///< float32, updated
  Tensor first_moment;   ///< float32, updated
  Tensor second_moment;  ///< float32, updated
  Tensor gradient;       ///< float32, read only
  Tensor working;        ///< float32 or bfloat16: overwritten with the new master, rounded; or Tensor{}
};

/// AdamW for one element, its scalars computed once in double.
struct AdamWElement {
  float scale, decay, one_minus_beta1, beta2, one_minus_beta2, inverse_root_correction2, epsilon, step_size;

  explicit AdamWElement(const AdamWStep& s)
      : scale(static_cast<float>(s.gradient_scale)),
        decay(static_cast<float>(1.0 - s.learning_rate * s.weight_decay)),
        one_minus_beta1(static_cast<float>(1.0 - s.beta1)),
        beta2(static_cast<float>(s.beta2)),
        one_minus_beta2(static_cast<float>(1.0 - s.beta2)),
        inverse_root_correction2(
            static_cast<float>(1.0 / std::sqrt(1.0 - std::pow(s.beta2, static_cast<double>(s.step))))),
        epsilon(static_cast<float>(s.epsilon)),
        step_size(static_cast<float>(s.learning_rate / (1.0 - std::pow(s.beta1, static_cast<double>(s.step))))) {}

  TADAPT_HOST_DEVICE void operator()(float& master, float& first, float& second, float gradient) const {
    const float g = scale * gradient;
    first += one_minus_beta1 * (g - first);
    second = beta2 * second + one_minus_beta2 * g * g;
    master = decay * master - step_size * (first / (sqrtf(second) * inverse_root_correction2 + epsilon));
  }
};

TADAPT_BACKENDS(void block_square_sums(Context& context, const Tensor& x, const Tensor& sums);
                void add_with_square_sums(Context& context, const Tensor& x, const Tensor& y, const Tensor& sums);
                void adamw(Context& context, const AdamWTensors& tensors, const AdamWStep& step);
                std::int64_t first_non_finite(Context& context, const Tensor& x);)

/// sums_b = Σ x_i² over block b, elements [4096·b, 4096·(b+1))
///   x     [n] float32, read only
///   sums  [sum_blocks(n)] float64, overwritten
/// In double in a fixed order; add the blocks up first to last for a norm that no sharding changes.
void block_square_sums(Context& context, const Tensor& x, const Tensor& sums);

/// y = y + x, and sums_b = Σ y_i² over block b of the result, in one pass: the bits of add_to and block_square_sums.
///   x     [n] float32, read only
///   y     [n] float32, accumulated into
///   sums  [sum_blocks(n)] float64, overwritten
void add_with_square_sums(Context& context, const Tensor& x, const Tensor& y, const Tensor& sums);

/// One step of AdamW with decoupled weight decay and bias correction, as PyTorch defines it: with g = scale·gradient,
///   m = β1·m + (1−β1)·g;  v = β2·v + (1−β2)·g²;  w = w·(1 − lr·decay) − lr · m/(1−β1^t) / (√(v/(1−β2^t)) + ε)
/// One pass, fp32 elements, scalars computed in double. No element depends on another.
/// Source: Loshchilov & Hutter, "Decoupled Weight Decay Regularization", 2019. Oracle: the formula in double.
void adamw(Context& context, const AdamWTensors& tensors, const AdamWStep& step);

/// The lowest index of an infinity or NaN in x ([n] float32, read only), or −1.
std::int64_t first_non_finite(Context& context, const Tensor& x);

}  // namespace tadapt

// Errors between rows: squared error with its gradient, square norms, token KL. Per row, in double: the caller sums.
#pragma once

#include "kernels/core/backends.h"

namespace tadapt {

/// Where token_kl puts its results, one entry a row; each overwritten.
struct TokenKlOutput {
  Tensor kl;                      ///< [T] float64, KL(target ‖ model) in nats
  Tensor target_argmax;           ///< [T] int32, the target's first choice
  Tensor argmax;                  ///< [T] int32, the model's first choice
  Tensor target_top_probability;  ///< [T] float32, the target's probability of its first choice
};

TADAPT_BACKENDS(void squared_error(Context& context, const Tensor& prediction, const Tensor& target,
                                   float gradient_scale, const Tensor& gradient, const Tensor& row_errors);
                void add_squared_error(Context& context, const Tensor& prediction, const Tensor& target,
                                       float gradient_scale, const Tensor& gradient, const Tensor& row_errors);
                void row_square_norms(Context& context, const Tensor& x, const Tensor& norms);
                void row_total(Context& context, const Tensor& rows, const Tensor& total);
                void token_kl(Context& context, const Tensor& target_logits, const Tensor& logits,
                              const TokenKlOutput& out);)

/// row_errors_t = ‖prediction_t − target_t‖²,   gradient = gradient_scale · (prediction − target)
///   prediction  [T, D] float32, read only unless it is also the gradient
///   target      [T, D] float32 or bfloat16, read only
///   gradient    [T, D] float32, overwritten; may be prediction itself, or Tensor{} for none
///   row_errors  [T] float64, overwritten
/// Differences in fp32, squares summed in double in a fixed order; a row depends on itself only.
void squared_error(Context& context, const Tensor& prediction, const Tensor& target, float gradient_scale,
                   const Tensor& gradient, const Tensor& row_errors);

/// As squared_error, but gradient += gradient_scale · (prediction − target): a term of the loss at a state whose
/// gradient already holds what comes from further on. `gradient` is needed and must not be prediction.
void add_squared_error(Context& context, const Tensor& prediction, const Tensor& target, float gradient_scale,
                       const Tensor& gradient, const Tensor& row_errors);

/// norms_t = ‖x_t‖² (the square, no root)
///   x      [T, D] float32 or bfloat16, read only
///   norms  [T] float64, overwritten
/// Summed in double in a fixed order; a row depends on itself only.
void row_square_norms(Context& context, const Tensor& x, const Tensor& norms);

/// total = Σ_t rows_t
///   rows   [T] float64, read only
///   total  [1] float64, overwritten (zero when T = 0)
/// In a fixed order: on the CPU first to last, on a GPU by its threads' strides.
void row_total(Context& context, const Tensor& rows, const Tensor& total);

/// With p = softmax(target_logits_t), q = softmax(logits_t): kl_t = Σ_v p_v (log p_v − log q_v), argmax and p's
/// maximum.
///   target_logits, logits  [T, V] float32, V > 0, read only
/// Exponentials in fp32, sums in double in a fixed order; of equal logits the lowest id is the first choice; a row
/// depends on itself only. kl is good to about 2e-7 and so may come out that far below 0. A row with a NaN gives a NaN.
/// Oracle: the formula in double.
void token_kl(Context& context, const Tensor& target_logits, const Tensor& logits, const TokenKlOutput& out);

}  // namespace tadapt

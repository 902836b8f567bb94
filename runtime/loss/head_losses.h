// Losses of next-token distributions, taken together with the vocabulary head in chunks of tokens.
#pragma once

#include <span>
#include <vector>

#include "runtime/model/decoder.h"

namespace tadapt {

/// Whether a divergence only counts in figures, or in the loss as well.
enum class KlUse : std::uint8_t { kFigure, kLoss };

/// Rows whose next-token distributions are compared with the target's.
struct HeadBranch {
  const Decoder* decoder;       ///< whose final norm and head read them
  Tensor residual;              ///< [T, D] float32: a last residual state
  Tensor kl_weights;            ///< [T] float32: factors of the rows' divergences
  Tensor kl;                    ///< [T] float64, overwritten: KL(target ‖ branch), in nats, 0 where the weight is 0
  Tensor cotangent;             ///< [T, D] float32, accumulated into: the gradient of what is weighted
  KlUse kl_use = KlUse::kLoss;  ///< kFigure: the divergence has no gradient
  Tensor label_weights = {};    ///< [T] float32: factors of −log q(label); Tensor{}: that is not looked at
  Tensor label_losses = {};     ///< [T] float64, overwritten where there are label weights
};

struct HeadLossInput {
  const Decoder& target;
  Tensor target_residual;  ///< [T, D] float32: its last residual state
  Tensor labels;           ///< [T] int32, for label weights
};

/// Values and gradients of the weighted divergences of all branches from the target, by as many rows at a time as fit
/// `budget_bytes` (at least one): [T, V] is never held. Rows depend on themselves only, so the results do not depend on
/// the budget. Source: method: forward KL, next-token shifted, fp32 softmax; see kl_loss.
class HeadLosses {
 public:
  explicit HeadLosses(std::int64_t budget_bytes) : budget_bytes_(budget_bytes) {}

  void value_and_gradient(Context& context, Workspace& workspace, const HeadLossInput& input,
                          std::span<const HeadBranch> branches);

 private:
  void run_rows(Context& context, Workspace& workspace, const HeadLossInput& input, const HeadBranch& branch,
                std::int64_t begin, std::int64_t end);

  std::int64_t budget_bytes_;
  Buffer target_norm_, target_logits_, norm_, logits_, losses_;
};

}  // namespace tadapt

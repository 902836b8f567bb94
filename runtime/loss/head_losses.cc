#include "runtime/loss/head_losses.h"

#include <algorithm>

#include "kernels/logit_losses.h"
#include "runtime/adapter/grown.h"

namespace tadapt {

void HeadLosses::value_and_gradient(Context& context, Workspace& workspace, const HeadLossInput& input,
                                    std::span<const HeadBranch> branches) {
  const std::int64_t rows = input.target_residual.size(0);
  const DecoderConfig& config = input.target.config();
  const std::int64_t bytes_per_row = 2 * (config.vocabulary + config.width) * static_cast<std::int64_t>(sizeof(float));
  const std::int64_t chunk =
      std::clamp<std::int64_t>(budget_bytes_ / bytes_per_row, 1, std::max<std::int64_t>(rows, 1));
  for (std::int64_t begin = 0; begin < rows; begin += chunk) {
    const std::int64_t end = std::min(begin + chunk, rows);
    const Tensor norm = grown(context, target_norm_, DType::kFloat32, end - begin, config.width);
    const Tensor logits = grown(context, target_logits_, DType::kFloat32, end - begin, config.vocabulary);
    input.target.final_norm(context, input.target_residual.rows(begin, end), norm);
    input.target.logits(context, norm, logits);
    for (const HeadBranch& branch : branches) run_rows(context, workspace, input, branch, begin, end);
  }
}

void HeadLosses::run_rows(Context& context, Workspace& workspace, const HeadLossInput& input, const HeadBranch& branch,
                          std::int64_t begin, std::int64_t end) {
  const DecoderConfig& config = branch.decoder->config();
  const Tensor residual = branch.residual.rows(begin, end), cotangent = branch.cotangent.rows(begin, end);
  const Tensor target = grown(context, target_logits_, DType::kFloat32, end - begin, config.vocabulary);
  const Tensor norm = grown(context, norm_, DType::kFloat32, end - begin, config.width);
  const Tensor logits = grown(context, logits_, DType::kFloat32, end - begin, config.vocabulary);
  const auto run = [&](KlUse use, const auto& loss_in_place) {
    branch.decoder->final_norm(context, residual, norm);
    branch.decoder->logits(context, norm, logits);
    loss_in_place();
    if (use == KlUse::kLoss)
      branch.decoder->add_logits_cotangent(context, workspace, residual, Linearisation::kExact, logits, cotangent);
  };
  run(branch.kl_use,
      [&] { kl_loss(context, target, branch.kl_weights.rows(begin, end), logits, branch.kl.rows(begin, end)); });
  if (branch.label_weights.empty()) return;
  run(KlUse::kLoss, [&] {
    next_token_loss(context, input.labels.rows(begin, end), branch.label_weights.rows(begin, end), logits,
                    branch.label_losses.rows(begin, end));
  });
}

}  // namespace tadapt

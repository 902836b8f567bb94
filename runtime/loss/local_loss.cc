#include "runtime/loss/local_loss.h"

#include "kernels/features.h"
#include "kernels/losses.h"

namespace tadapt {
namespace {

/// The first tokens·width numbers of `memory` as [tokens, width].
Tensor matrix(const Buffer& memory, std::int64_t tokens, std::int64_t width) {
  return memory.tensor().rows(0, tokens * width).reshaped({tokens, width});
}

/// In row order, so that the value of a leaf does not depend on threads.
double sum(const Tensor& rows) {
  double total = 0.0;
  for (const double value : rows.span<double>()) total += value;
  return total;
}

}  // namespace

LocalLossPass::LocalLossPass(Device device, const Limits& limits)
    : record_(device, limits.tokens, limits.shape.features,
              most_pairs(limits.tokens, limits.shape.features, limits.sparse_below)),
      output_(device, DType::kFloat32, {limits.tokens * limits.shape.model_width}),
      row_errors_(device, DType::kFloat64, {limits.tokens}),
      active_(device, DType::kInt32, {limits.tokens}) {}

LocalLossValue LocalLossPass::value_and_gradient(Context& context, const Leaf& leaf) {
  const std::int64_t tokens = leaf.x.size(0);
  const Tensor output = matrix(output_, tokens, leaf.adapter.shape().model_width);
  const Tensor row_errors = row_errors_.tensor().rows(0, tokens);
  leaf.adapter.forward(context, leaf.x, leaf.masters, record_, output);
  squared_error(context, output, leaf.delta, static_cast<float>(leaf.loss.cotangent_scale()), output, row_errors);
  const AdapterBackward backward =
      leaf.adapter.backward(context, {.x = leaf.x,
                                      .record = record_,
                                      .cotangent = output,
                                      .sparsity = static_cast<float>(leaf.loss.sparsity_scale()),
                                      .masters = leaf.masters,
                                      .gradients = parameter_views(leaf.group, leaf.gradient),
                                      .statistics = statistic_views(leaf.group, leaf.gradient)});
  return {sum(row_errors), backward.weighted_activations};
}

LocalLossPass::Evaluation LocalLossPass::evaluate(Context& context, const Adapter& adapter, const Tensor& x,
                                                  const Tensor& delta) {
  const std::int64_t tokens = x.size(0);
  const Tensor activations = record_.begin(tokens, adapter.shape().features);
  const Tensor output = matrix(output_, tokens, adapter.shape().model_width);
  const Tensor rows = row_errors_.tensor().rows(0, tokens);
  Evaluation evaluation;
  adapter.forward(context, x, activations, output);
  const Tensor counts = active_.tensor().rows(0, tokens);
  l0(context, activations, counts);
  for (const std::int32_t count : counts.span<std::int32_t>()) evaluation.active += count;
  squared_error(context, output, delta, 0.0f, Tensor(), rows);
  evaluation.square_error = sum(rows);
  row_square_norms(context, delta, rows);
  evaluation.delta_square = sum(rows);
  return evaluation;
}

}  // namespace tadapt

#include "runtime/loss/local_loss.h"

#include "kernels/core/memory.h"
#include "kernels/features.h"
#include "kernels/losses.h"

namespace tadapt {
namespace {

/// The first tokens·width numbers of `memory` as [tokens, width].
Tensor matrix(const Buffer& memory, std::int64_t tokens, std::int64_t width) {
  return memory.tensor().rows(0, tokens * width).reshaped({tokens, width});
}

}  // namespace

LocalLossPass::LocalLossPass(Device device, const Limits& limits)
    : record_(device, limits.tokens, limits.shape.features,
              most_pairs(limits.tokens, limits.shape.features, limits.sparse_below)),
      output_(device, DType::kFloat32, {limits.tokens * limits.shape.model_width}),
      row_errors_(device, DType::kFloat64, {limits.tokens}),
      active_(device, DType::kInt32, {limits.tokens}),
      sums_(device, DType::kFloat64, {2}) {}

void LocalLossPass::value_and_gradient(Context& context, const Leaf& leaf) {
  const std::int64_t tokens = leaf.x.size(0);
  const Tensor output = matrix(output_, tokens, leaf.adapter.shape().model_width);
  const Tensor row_errors = row_errors_.tensor().rows(0, tokens);
  leaf.adapter.forward(context, leaf.x, leaf.masters, record_, output);
  squared_error(context, output, leaf.delta, static_cast<float>(leaf.loss.cotangent_scale()), output, row_errors);
  row_total(context, row_errors, leaf.value.rows(0, 1));
  leaf.adapter.backward(context, {.x = leaf.x,
                                  .record = record_,
                                  .scratch = scratch_,
                                  .cotangent = output,
                                  .sparsity = static_cast<float>(leaf.loss.sparsity_scale()),
                                  .masters = leaf.masters,
                                  .gradients = parameter_views(leaf.group, leaf.gradient),
                                  .statistics = statistic_views(leaf.group, leaf.gradient),
                                  .weighted_activations = leaf.value.rows(1, 2),
                                  .input_gradient = Tensor()});
}

LocalLossPass::Evaluation LocalLossPass::evaluate(Context& context, const Adapter& adapter, const Tensor& x,
                                                  const Tensor& delta) {
  const std::int64_t tokens = x.size(0);
  const DeviceView inputs(context, x), wanted(context, delta);
  const Tensor activations = record_.begin(tokens, adapter.shape().features);
  const Tensor output = matrix(output_, tokens, adapter.shape().model_width);
  const Tensor rows = row_errors_.tensor().rows(0, tokens);
  const Tensor sums = sums_.tensor(), counts = active_.tensor().rows(0, tokens);
  adapter.forward(context, inputs.tensor(), activations, output);
  l0(context, activations, counts);
  squared_error(context, output, wanted.tensor(), 0.0f, Tensor(), rows);
  row_total(context, rows, sums.rows(0, 1));
  row_square_norms(context, wanted.tensor(), rows);
  row_total(context, rows, sums.rows(1, 2));
  const std::vector<double> totals = on_host<double>(context, sums);
  Evaluation evaluation{.square_error = totals[0], .delta_square = totals[1], .active = 0};
  for (const std::int32_t count : on_host<std::int32_t>(context, counts)) evaluation.active += count;
  return evaluation;
}

}  // namespace tadapt

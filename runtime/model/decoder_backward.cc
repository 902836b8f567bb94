// The pieces of a decoder backwards.
#include <algorithm>

#include "kernels/attention_backward.h"
#include "kernels/norm.h"
#include "kernels/pointwise.h"
#include "kernels/rope.h"
#include "runtime/model/decoder.h"

namespace tadapt {

void Decoder::add_attention_cotangent(Context& context, Workspace& workspace, const AttentionPlace& place,
                                      Linearisation linearisation, const Tensor& cotangent) const {
  const auto& [layer, tokens, residual, record] = place;
  const AttentionWeights& weights = trunk_.layers.at(static_cast<std::size_t>(layer)).attention;
  const std::int64_t rows = residual.size(0);
  const bool exact = linearisation == Linearisation::kExact;
  const AttentionInput heads = attention_input(record, tokens);
  const Tensor attended = workspace.of(Workspace::kAttendedCotangent, {rows, config_.query_width()});
  matmul_backward(context, cotangent, weights.out, attended);

  const Tensor query = workspace.of(Workspace::kQueryCotangent, {rows, config_.query_width()});
  const Tensor key = workspace.of(Workspace::kKeyCotangent, {rows, config_.key_width()});
  const Tensor value = workspace.of(Workspace::kValueCotangent, {rows, config_.key_width()});
  const AttentionGradient gradient{.query = exact ? query.reshaped(heads.query.shape()) : Tensor(),
                                   .key = exact ? key.reshaped(heads.key.shape()) : Tensor(),
                                   .value = value.reshaped(heads.value.shape())};
  causal_attention_backward(context, heads,
                            {.out = record.attended.reshaped(heads.query.shape()),
                             .log_sums = record.log_sums,
                             .cotangent = attended.reshaped(heads.query.shape())},
                            linearisation, gradient);

  const Tensor normed = workspace.of(Workspace::kNormedCotangent, residual.shape());
  matmul_backward(context, value, weights.value, normed);
  if (exact) {
    const Tensor partial = workspace.of(Workspace::kPartialCotangent, residual.shape());
    rope(context, gradient.query, tokens.positions, config_.rope_theta, Rotation::kBackward);
    matmul_backward(context, query, weights.query, partial);
    add_to(context, partial, normed);
    rope(context, gradient.key, tokens.positions, config_.rope_theta, Rotation::kBackward);
    matmul_backward(context, key, weights.key, partial);
    add_to(context, partial, normed);
  }
  rms_norm_backward(context, {residual, weights.norm.tensor(), static_cast<float>(config_.norm_epsilon)}, normed,
                    linearisation, cotangent);
}

void Decoder::mlp_backward(Context& context, Workspace& workspace, const MlpPlace& place, Linearisation linearisation,
                           const Tensor& cotangent, const Tensor& gradient) const {
  const auto& [layer, source, mlp_in, record] = place;
  const MlpWeights& weights = mlp_weights(layer, source);
  for (std::int64_t begin = 0; begin < mlp_in.size(0); begin += kMlpRows) {
    const std::int64_t end = std::min(begin + kMlpRows, mlp_in.size(0));
    const Shape shape{end - begin, config_.mlp_width};
    const bool kept = !record.gate.empty();
    const Tensor gate = kept ? record.gate.rows(begin, end) : workspace.of(Workspace::kGate, shape);
    const Tensor up = kept ? record.up.rows(begin, end) : workspace.of(Workspace::kUp, shape);
    if (!kept) {
      matmul(context, mlp_in.rows(begin, end), weights.gate, Tensor(), Epilogue::kNone, gate);
      matmul(context, mlp_in.rows(begin, end), weights.up, Tensor(), Epilogue::kNone, up);
    }
    const Tensor hidden = workspace.of(Workspace::kHidden, shape);
    matmul_backward(context, cotangent.rows(begin, end), weights.down, hidden);
    swiglu_backward(context, {gate, up}, hidden, linearisation, {gate, up});
    const Tensor partial = workspace.of(Workspace::kPartialCotangent, {end - begin, config_.width});
    matmul_backward(context, gate, weights.gate, gradient.rows(begin, end));
    matmul_backward(context, up, weights.up, partial);
    add_to(context, partial, gradient.rows(begin, end));
  }
}

void Decoder::add_mlp_input_cotangent(Context& context, int layer, const Tensor& residual, Linearisation linearisation,
                                      const Tensor& mlp_in_cotangent, const Tensor& cotangent) const {
  const Buffer& norm = trunk_.layers.at(static_cast<std::size_t>(layer)).mlp_norm;
  rms_norm_backward(context, {residual, norm.tensor(), static_cast<float>(config_.norm_epsilon)}, mlp_in_cotangent,
                    linearisation, cotangent);
}

void Decoder::add_logits_cotangent(Context& context, Workspace& workspace, const Tensor& residual,
                                   Linearisation linearisation, const Tensor& logits_cotangent,
                                   const Tensor& cotangent) const {
  const Tensor normed = workspace.of(Workspace::kNormedCotangent, residual.shape());
  matmul_backward(context, logits_cotangent, trunk_.head, normed);
  rms_norm_backward(context, {residual, trunk_.final_norm.tensor(), static_cast<float>(config_.norm_epsilon)}, normed,
                    linearisation, cotangent);
}

}  // namespace tadapt

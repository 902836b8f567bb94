#include "runtime/analysis/prompt_record.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "kernels/core/memory.h"
#include "kernels/pointwise.h"
#include "kernels/sparse.h"

namespace tadapt {
namespace {

/// Bytes that the records of so many tokens take from the arena.
std::int64_t record_bytes(const DecoderConfig& config, std::int64_t tokens) {
  const auto of = [&](std::int64_t width) { return Arena::bytes(DType::kFloat32, {tokens, width}); };
  const std::int64_t layer = 2 * of(config.width) + of(config.query_width()) + 2 * of(config.key_width()) +
                             of(config.heads) + 2 * of(config.mlp_width);
  return config.layers * layer + of(config.width);
}

}  // namespace

std::int64_t PromptRecord::bytes(const DecoderConfig& config, std::int64_t tokens, std::int64_t most_features) {
  // Beside the records: what one layer's forward needs, and one layer's activations.
  const std::int64_t forward = 4 * config.width + config.query_width() + most_features;
  return record_bytes(config, tokens) + tokens * forward * static_cast<std::int64_t>(sizeof(float)) +
         2 * config.vocabulary * static_cast<std::int64_t>(sizeof(float));
}

PromptRecord::PromptRecord(Context& context, AttributionModel& model, PromptMemory& memory,
                           std::span<const std::int32_t> ids)
    : memory_(memory) {
  const Decoder& decoder = model.decoder();
  const DecoderConfig& config = decoder.config();
  batch_.append(ids);
  memory_.records.reserve(record_bytes(config, tokens()));
  for (int layer = 0; layer < config.layers; ++layer) layers_.push_back(take_layer(config));
  last_state_ = memory_.records.take(DType::kFloat32, {tokens(), config.width});
  decoder.embed(context, memory_.tokens.place(context, batch_), embeddings());
  for (int layer = 0; layer < config.layers; ++layer) {
    const auto next = static_cast<std::size_t>(layer) + 1;
    run_layer(context, model, layer, next < layers_.size() ? layers_[next].before : last_state_);
    first_pair_.push_back(first_pair_.back() + layers_[next - 1].pairs());
  }
  const Buffer normed(context.device(), DType::kFloat32, {1, config.width});
  const Buffer logits(context.device(), DType::kFloat32, {1, config.vocabulary});
  decoder.final_norm(context, last_state_.rows(tokens() - 1, tokens()), normed.tensor());
  decoder.logits(context, normed.tensor(), logits.tensor());
  logits_ = on_host<float>(context, logits.tensor());
  if (!std::ranges::all_of(logits_, [](float logit) { return std::isfinite(logit); }))
    throw NonFiniteError("attribution: the adapter model's logits are not finite");
}

PromptRecord::Layer PromptRecord::take_layer(const DecoderConfig& config) {
  const auto take = [&](std::int64_t width) { return memory_.records.take(DType::kFloat32, {tokens(), width}); };
  Layer layer;
  layer.before = take(config.width);
  layer.attention = {.query = take(config.query_width()),
                     .key = take(config.key_width()),
                     .value = take(config.key_width()),
                     .attended = Tensor(),
                     .log_sums = take(config.heads)};
  layer.middle = take(config.width);
  layer.mlp = {.gate = take(config.mlp_width), .up = take(config.mlp_width)};
  return layer;
}

void PromptRecord::run_layer(Context& context, AttributionModel& model, int layer, const Tensor& after) {
  const Decoder& decoder = model.decoder();
  Workspace& workspace = memory_.workspace;
  Layer& record = layers_[static_cast<std::size_t>(layer)];
  AttentionRecord attention = record.attention;
  attention.attended = workspace.of(Workspace::kAttended, attention.query.shape());
  const TokenTensors tokens = memory_.tokens.place(context, batch_);
  decoder.attention(context, workspace, {layer, tokens, record.before, attention}, record.middle);
  add_to(context, record.before, record.middle);
  const Tensor mlp_in = workspace.of(Workspace::kNormed, record.middle.shape());
  decoder.mlp_input(context, layer, record.middle, mlp_in);
  decoder.mlp(context, workspace, {layer, MlpSource::kTarget, mlp_in, record.mlp}, after);
  if (model.features(layer) != nullptr) {
    AdapterSet& adapters = model.adapters();
    adapters.listen(
        [&](int, const TokenBatch&, const Tensor& activations) { keep_active(context, activations, record); });
    adapters.add_output(context, layer, batch_, mlp_in, after);
    adapters.listen({});
  }
  add_to(context, record.middle, after);
}

void PromptRecord::keep_active(Context& context, const Tensor& activations, Layer& layer) {
  const auto take = [&](DType dtype, std::int64_t count) {
    return pair_memory_.emplace_back(context.device(), dtype, Shape{count}).tensor();
  };
  SparseFeatures& active = layer.active;
  active.offsets = take(DType::kInt32, tokens() + 1);
  const std::int64_t pairs = count_pairs(context, activations, active.offsets);
  active.features = take(DType::kInt32, pairs);
  active.activations = take(DType::kFloat32, pairs);
  gather_pairs(context, activations, active);
  layer.offsets = on_host<std::int32_t>(context, active.offsets);
  layer.features = on_host<std::int32_t>(context, active.features);
  layer.activations = on_host<float>(context, active.activations);
  layer.positions.resize(layer.features.size());
  for (std::size_t t = 0; t + 1 < layer.offsets.size(); ++t)
    std::fill(layer.positions.begin() + layer.offsets[t], layer.positions.begin() + layer.offsets[t + 1],
              static_cast<std::int32_t>(t));
}

AttributionTarget PromptRecord::feature_target(int layer, std::int32_t pair) const {
  const Layer& record = layers_.at(static_cast<std::size_t>(layer));
  const auto at = static_cast<std::size_t>(pair);
  return {.layer = layer,
          .position = record.positions.at(at),
          .id = record.features.at(at),
          .value = static_cast<double>(record.activations.at(at)),
          .pair = pair};
}

std::vector<AttributionTarget> PromptRecord::logit_targets(const LogitChoice& choice) const {
  const double largest = *std::ranges::max_element(logits_);
  double sum = 0.0, exponentials = 0.0;
  for (const float logit : logits_) {
    sum += logit;
    exponentials += std::exp(logit - largest);
  }
  std::vector<std::int32_t> ids(logits_.size());
  std::iota(ids.begin(), ids.end(), 0);
  const auto logit = [&](std::int32_t id) { return logits_[static_cast<std::size_t>(id)]; };
  const auto most = ids.begin() + std::min<std::int64_t>(choice.most, static_cast<std::int64_t>(ids.size()));
  std::partial_sort(ids.begin(), most, ids.end(), [&](std::int32_t a, std::int32_t b) {
    return logit(a) > logit(b) || (logit(a) == logit(b) && a < b);
  });
  std::vector<AttributionTarget> targets;
  double reached = 0.0;
  for (auto id = ids.begin(); id != most && reached < choice.mass; ++id) {
    const double probability = std::exp(logit(*id) - largest) / exponentials;
    targets.push_back({.layer = static_cast<int>(layers_.size()),
                       .position = static_cast<std::int32_t>(tokens() - 1),
                       .id = *id,
                       .value = logit(*id) - sum / static_cast<double>(logits_.size()),
                       .probability = probability});
    reached += probability;
  }
  return targets;
}

}  // namespace tadapt

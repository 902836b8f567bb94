#include "runtime/loss/bridging_pass.h"

#include <cmath>

#include "kernels/optim.h"

namespace tadapt {
namespace {

/// Of passes that look at the adapter model alone.
constexpr BridgingWeights kDivergenceOnly{.kl_adapter = 1.0, .kl_bridge = 0.0, .residual_nmse = 0.0};

BridgingWork forwards_only(const TokenBatch& batch, AdapterTape& adapters) {
  return {
      .batch = batch, .cutoffs = {}, .whole = counts_of(batch), .sparsity = 0.0, .adapters = adapters, .gradients = {}};
}

}  // namespace

BridgingPass::BridgingPass(Context& context, const BridgingModels& models, const BridgingWeights& weights,
                           const BridgingMemory& memory)
    : BridgingPass(context, models, weights, memory, {.part = {.layers = {0, models.pair.config().layers}}}) {}

BridgingPass::BridgingPass(Context& context, const BridgingModels& models, const BridgingWeights& weights,
                           const BridgingMemory& memory, const BridgingStage& stage)
    : context_(context),
      models_(models),
      weights_(weights),
      memory_(memory),
      stage_(stage),
      workspace_(context.device()),
      head_(memory.logits_budget_bytes),
      target_mlps_(static_cast<std::size_t>(models.pair.config().layers), MlpSource::kTarget) {
  for (int leaf = 0; leaf < stage.leaves; ++leaf) {
    leaves_.push_back(
        std::make_unique<LeafMemory>(context.device(), models.pair.config().layers + 1, weights.nmse_over_states));
    leaves_.back()->arena.reserve(bytes(models.pair.config(), memory, stage.part));
  }
}

std::int64_t BridgingPass::bytes(const DecoderConfig& config, const BridgingMemory& memory, const BridgingPart& part) {
  return BridgingLeaf::bytes(config, memory, part);
}

/// Layers without an adapter run the target's own MLP in the adapter model.
void BridgingPass::choose_mlps(const AdapterTape& adapters) {
  adapter_mlps_.clear();
  for (int layer = 0; layer < models_.pair.config().layers; ++layer)
    adapter_mlps_.push_back(adapters.has(layer) ? MlpSource::kBase : MlpSource::kTarget);
}

std::unique_ptr<BridgingLeaf> BridgingPass::begin(std::size_t place, const BridgingWork& work,
                                                  const BridgingWeights& weights) {
  choose_mlps(work.adapters);
  return std::make_unique<BridgingLeaf>(BridgingMachine{.context = context_,
                                                        .models = models_,
                                                        .weights = weights,
                                                        .part = stage_.part,
                                                        .link = stage_.link,
                                                        .recording = memory_.recording,
                                                        .workspace = workspace_,
                                                        .head = head_,
                                                        .target_mlps = target_mlps_,
                                                        .adapter_mlps = adapter_mlps_,
                                                        .layer_passes = layer_passes_},
                                        *leaves_.at(place), work);
}

std::vector<BridgingValue> BridgingPass::run(std::span<const BridgingWork> leaves) {
  std::vector<BridgingValue> values;
  const auto together = static_cast<std::size_t>(stage_.leaves);
  for (std::size_t first = 0; first < leaves.size(); first += together) {
    std::vector<std::unique_ptr<BridgingLeaf>> under_way;
    for (const BridgingWork& work : leaves.subspan(first, std::min(together, leaves.size() - first)))
      under_way.push_back(begin(under_way.size(), work, weights_));
    for (const auto& leaf : under_way) leaf->forward();
    for (const auto& leaf : under_way) leaf->forward_a2r();
    for (const auto& leaf : under_way) leaf->backward_a2r();
    for (const auto& leaf : under_way) leaf->forward_rest();
    for (const auto& leaf : under_way) leaf->backward();
    for (const auto& leaf : under_way) values.push_back(leaf->value());
  }
  return values;
}

double BridgingPass::divergence(const TokenBatch& batch, AdapterTape& adapters) {
  const auto leaf = begin(0, forwards_only(batch, adapters), kDivergenceOnly);
  leaf->forward();
  leaf->forward_rest([](int, const Tensor&) {});  // nothing is recorded
  return leaf->adapter_divergence();
}

std::string BridgingPass::first_non_finite(const TokenBatch& batch, AdapterTape& adapters) {
  const auto leaf = begin(0, forwards_only(batch, adapters), kDivergenceOnly);
  std::string found;
  const auto look = [&](int state, const Tensor& values, const char* whose) {
    if (!found.empty() || tadapt::first_non_finite(context_, values.reshaped({values.elements()})) < 0) return;
    found = state == 0 ? fmt::format("embeddings: {} residual state", whose)
                       : fmt::format("layer {}: {} residual state", state - 1, whose);
  };
  leaf->forward();
  for (int state = stage_.part.layers.begin; stage_.part.runs_target() && state <= stage_.part.layers.end; ++state)
    look(state, leaf->target_state(state), "the target's");
  leaf->forward_rest([&](int state, const Tensor& values) { look(state, values, "the adapter model's"); });
  if (found.empty() && !std::isfinite(leaf->adapter_divergence()))
    found = "final norm and head: the divergence of the adapter model from the target";
  return found;
}

}  // namespace tadapt

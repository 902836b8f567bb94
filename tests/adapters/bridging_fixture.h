// The tiny pair, adapters and sequences of tests/golden/bridging, and what the bridging pass makes of them.
#pragma once

#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <optional>

#include "data/safetensors.h"
#include "kernels/core/memory.h"
#include "runtime/loss/bridging_pass.h"
#include "tests/support/devices.h"

namespace tadapt::testing {

inline std::filesystem::path bridging_golden() {
  return std::filesystem::path(TADAPT_SOURCE_DIR) / "tests/golden/bridging";
}

inline nlohmann::json bridging_cases() {
  std::ifstream file(bridging_golden() / "cases.json");
  return nlohmann::json::parse(file);
}

inline TokenBatch batch_of(const nlohmann::json& sequences) {
  TokenBatch batch;
  for (const auto& ids : sequences) batch.append(ids.get<std::vector<std::int32_t>>());
  return batch;
}

using Gradients = std::vector<std::vector<float>>;  ///< by layer, laid out as the layer's parameter group

/// √(Σ (a − b)² / Σ b²) over all layers.
inline double relative_error(const Gradients& a, const Gradients& b) {
  double squares = 0, errors = 0;
  for (std::size_t layer = 0; layer < b.size(); ++layer) {
    for (std::size_t i = 0; i < b[layer].size(); ++i) {
      squares += static_cast<double>(b[layer][i]) * b[layer][i];
      errors += std::pow(static_cast<double>(a[layer][i]) - b[layer][i], 2);
    }
  }
  return std::sqrt(errors / squares);
}

/// How the fixture's adapters compute.
struct BridgingSetup {
  DType compute = DType::kFloat32;
  double sparse_below = 0.0;  ///< 0: dense; many: sparse
  Recording recording = Recording::kAll;
  std::int64_t logits_budget_bytes = 1 << 20;
};

class BridgingFixture {
 public:
  explicit BridgingFixture(Device device, const BridgingSetup& setup = {})
      : device_(device),
        setup_(setup),
        context_(context_on(device, 2)),
        pair_(Decoder::load_pair(context_, files_, bridging_golden() / "target", bridging_golden() / "base",
                                 {setup.compute, Directions::kBoth})),
        base_(pair_.load_base(context_, files_, bridging_golden() / "base")) {
    const SafetensorsFile saved(bridging_golden() / "adapters.safetensors");
    const Shape shape = saved.tensor("0.W_enc").shape();
    std::vector<ParameterGroupSpec> specs;
    for (int layer = 0; layer < pair_.config().layers; ++layer) {
      adapters_.push_back(make_adapter(
          "transcoder", {.model_width = shape[1], .features = shape[0]},
          {.dtype = setup.compute, .sparse_below = setup.sparse_below, .gradients = AdapterGradients::kInputs}));
      specs.push_back(adapters_.back()->parameters(fmt::format("layer-{:03}", layer)));
    }
    store_.emplace(device, specs);
    for (std::size_t layer = 0; layer < adapters_.size(); ++layer) {
      const ParameterTensors masters = store_->master_views(layer);
      for (const auto& [name, tensor] : masters.entries())
        copy(context_, saved.tensor(fmt::format("{}.{}", layer, name)), tensor);
      synchronize(context_);
      adapters_[layer]->prepare(context_, store_->master_views(layer));
    }
  }

  Context& context() { return context_; }
  const Decoder& pair() const { return pair_; }
  const Decoder& base() const { return base_; }
  const ParameterStore& store() const { return *store_; }
  std::size_t layers() const { return adapters_.size(); }

  LayerSpan all_layers() const { return {0, pair_.config().layers}; }
  std::unique_ptr<AdapterTape> tape(LayerSpan span, AdapterTape::Limits limits) {
    std::vector<TapedAdapter> taped;
    for (int layer = span.begin; layer < span.end; ++layer) {
      const auto at = static_cast<std::size_t>(layer);
      taped.push_back({.layer = layer,
                       .adapter = adapters_[at].get(),
                       .masters = store_->master_views(at),
                       .group = &store_->group(at)});
    }
    limits.memory = setup_.recording == Recording::kAll ? FeatureMemory::kKept : FeatureMemory::kRecomputed;
    return std::make_unique<AdapterTape>(device_, std::move(taped), limits);
  }
  /// A leaf whose gradients go to the store.
  AdapterTape::Leaf leaf() {
    return {.sparsity = 0.0f,
            .slot = [this](std::size_t layer) { return store_->gradient(layer); },
            .filled = [this](std::size_t layer) { filled_.push_back(layer); },
            .weighted_activations = Tensor()};
  }
  /// Trainable numbers of all layers' gradients.
  Gradients gradients() {
    Gradients all;
    for (std::size_t layer = 0; layer < layers(); ++layer)
      all.push_back(on_host<float>(context_, store_->gradient(layer).rows(0, store_->group(layer).trainable_elements)));
    return all;
  }
  std::vector<float> active_counts(std::size_t layer) {
    return on_host<float>(context_, statistic_views(store_->group(layer), store_->gradient(layer))[kActiveCounts]);
  }

  struct Outcome {
    BridgingValue value;
    Gradients gradients;
    std::int64_t layer_passes = 0;
  };
  Outcome run(const TokenBatch& batch, const std::vector<int>& cutoffs, const BridgingWeights& weights,
              Backbone backbone) {
    return run_part(batch, cutoffs, weights, backbone, {.part = {.layers = all_layers()}});
  }
  /// Of a leaf that other fixtures run the rest of.
  Outcome run_part(const TokenBatch& batch, const std::vector<int>& cutoffs, const BridgingWeights& weights,
                   Backbone backbone, const BridgingStage& stage) {
    const BridgingModels models{pair_, backbone == Backbone::kBase ? &base_ : nullptr};
    BridgingPass pass(context_, models, weights,
                      {.leaf_tokens = batch.tokens(),
                       .cutoffs = static_cast<int>(cutoffs.size()),
                       .recording = setup_.recording,
                       .logits_budget_bytes = setup_.logits_budget_bytes},
                      stage);
    const auto bridges = static_cast<int>(cutoffs.size());
    const auto adapters = tape(
        stage.part.layers, {.tokens = batch.tokens(),
                            .branches = (stage.part.runs_adapter() ? 1 : 0) + (stage.part.runs_target() ? bridges : 0),
                            .first_branch = stage.part.runs_adapter() ? 0 : 1});
    for (std::size_t layer = 0; layer < layers(); ++layer) clear(context_, store_->gradient(layer));
    filled_.clear();
    const auto first = static_cast<std::size_t>(stage.part.layers.begin);
    Outcome outcome;
    outcome.value = pass.value_and_gradient({.batch = batch,
                                             .cutoffs = cutoffs,
                                             .whole = counts_of(batch),
                                             .sparsity = weights.sparsity,
                                             .adapters = *adapters,
                                             .gradients = {[&](std::size_t i) { return leaf().slot(first + i); },
                                                           [&](std::size_t i) { leaf().filled(first + i); }}});
    outcome.gradients = gradients();
    outcome.layer_passes = pass.layer_passes();
    return outcome;
  }
  /// Layers in the order in which their gradients were finished.
  const std::vector<std::size_t>& filled() const { return filled_; }

 private:
  Device device_;
  BridgingSetup setup_;
  RealFileSystem files_;
  Context context_;
  Decoder pair_, base_;
  std::vector<std::unique_ptr<Adapter>> adapters_;
  std::optional<ParameterStore> store_;
  std::vector<std::size_t> filled_;
};

}  // namespace tadapt::testing

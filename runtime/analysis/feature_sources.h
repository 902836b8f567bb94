// The things with features that are collected: adapters, and MLP neurons as their baseline.
#pragma once

#include <filesystem>
#include <map>
#include <vector>

#include "kernels/matmul.h"
#include "runtime/analysis/feature_collection.h"
#include "runtime/eval/adapter_set.h"
#include "runtime/model/segments.h"

namespace tadapt {

/// The features of adapters, in the adapter model's own pass.
class AdapterFeatures : public FeatureSource {
 public:
  /// All outlive it.
  AdapterFeatures(Context& context, const Decoder& pair, const AdapterBundle& bundle, DType compute);

  std::vector<Layer> layers() const override;
  void run(const TokenBatch& batch, const ActivationSink& sink) override;
  std::vector<std::int32_t> ids(int layer) const override;
  const Decoder& decoder() const override { return pair_; }
  Tensor directions(int layer) const override;

 private:
  Context& context_;
  const Decoder& pair_;
  const AdapterBundle& bundle_;
  AdapterSet adapters_;
  Segment segment_;
  SegmentRunner runner_;
};

/// What counts as an activation of a neuron, whose value h = silu(gate)·up has either sign.
enum class NeuronRule : std::uint8_t {
  kPositive,  ///< h where h > 0
  kAbsolute,  ///< |h|: nearly every token
};

/// N neurons of every MLP of a model, drawn by (seed, layer), in the model's own pass.
class NeuronFeatures : public FeatureSource {
 public:
  struct Choice {
    std::int64_t count = 0;
    std::uint64_t seed = 0;
    NeuronRule rule = NeuronRule::kPositive;
  };
  /// `model` is the decoder of `directory`; both outlive it. ConfigError when an MLP has fewer neurons.
  NeuronFeatures(Context& context, const Decoder& model, const std::filesystem::path& directory, const Choice& choice);

  std::vector<Layer> layers() const override;
  void run(const TokenBatch& batch, const ActivationSink& sink) override;
  std::vector<std::int32_t> ids(int layer) const override { return neurons_.at(layer).ids; }
  const Decoder& decoder() const override { return model_; }
  Tensor directions(int layer) const override { return neurons_.at(layer).directions.tensor(); }

 private:
  struct Neurons {
    std::vector<std::int32_t> ids;
    PackedWeights gate, up;
    Buffer directions;  // [N, D], on the host
  };
  Context& context_;
  Context host_;
  const Decoder& model_;
  Choice choice_;
  std::map<int, Neurons> neurons_;
  Buffer gate_, up_;
  Segment segment_;
  SegmentRunner runner_;
};

/// The neurons that are drawn in a layer: `count` of `all`, ascending.
std::vector<std::int32_t> drawn_neurons(std::int64_t count, std::int64_t all, std::uint64_t seed, int layer);

}  // namespace tadapt

#include "runtime/analysis/attribution_model.h"

#include <algorithm>

#include "runtime/plan/estimate.h"

namespace tadapt {

AttributionModel::AttributionModel(Context& context, Decoder hybrid, AdapterBundle bundle)
    : decoder_(std::move(hybrid)), bundle_(std::move(bundle)), adapters_(context, bundle_, DType::kFloat32) {
  for (const AdapterBundle::Layer& layer : bundle_.layers) {
    const ParameterStore& store = *layer.store;
    const auto placed = masters_.try_emplace(layer.layer, context, store.master(0)).first;
    const ParameterTensors there = parameter_views(store.group(0), placed->second.tensor());
    const Tensor bias = there["b_dec"];
    features_.emplace(layer.layer, Features{.encoder = there["W_enc"],
                                            .decoder = there["W_dec"],
                                            .decoder_bias = bias.reshaped({1, bias.elements()}),
                                            .encoder_bias = store.master_views(0)["b_enc"].span<float>()});
  }
}

const AttributionModel::Features* AttributionModel::features(int layer) const {
  const auto found = features_.find(layer);
  return found == features_.end() ? nullptr : &found->second;
}

std::int64_t AttributionModel::most_features() const {
  std::int64_t most = 0;
  for (const auto& [layer, features] : features_) most = std::max(most, features.count());
  return most;
}

std::int64_t AttributionModel::bytes(const DecoderConfig& config, const std::vector<AdapterShape>& adapters,
                                     Device device) {
  constexpr auto kFloat = static_cast<std::int64_t>(sizeof(float));
  const auto packed = [&](Directions directions) {
    return static_cast<std::int64_t>(packed_bytes_per_number(device, DType::kFloat32, directions));
  };
  // frozen_memory_bytes counts the MLPs of both models; here there is one a layer.
  const std::int64_t mlps = 3 * config.width * config.mlp_width * config.layers;
  std::int64_t bytes = static_cast<std::int64_t>(frozen_memory_bytes(config, DType::kFloat32, device, 1)) -
                       mlps * packed(Directions::kBoth);
  for (const AdapterShape& adapter : adapters) {
    // The bundle's store holds room for gradients too.
    const std::int64_t stores = (device == Device::kCpu ? 2 : 1) * kFloat;
    bytes += stores * transcoder_parameters(adapter.model_width, adapter.features) +
             2 * adapter.model_width * adapter.features * packed(Directions::kForward);
  }
  return bytes;
}

}  // namespace tadapt

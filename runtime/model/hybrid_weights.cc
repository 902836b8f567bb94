#include "runtime/model/hybrid_weights.h"

namespace tadapt {

HybridWeights::HybridWeights(const ModelTensors& target, const ModelTensors& base, const std::vector<int>& layers)
    : target_(target.weights), base_(base.weights) {
  require_same_mlp_shapes(base.config, target.config);
  const TensorNames &asked = target.config.architecture->names, &there = base.config.architecture->names;
  for (const int layer : layers) {
    for (const auto part : {&TensorNames::gate, &TensorNames::up, &TensorNames::down})
      of_base_.emplace(layer_tensor(asked.*part, layer), layer_tensor(there.*part, layer));
  }
}

void HybridWeights::read(Context& context, const std::string& name, const Shape& shape, const Use& use) const {
  const auto found = of_base_.find(name);
  if (found == of_base_.end())
    target_.read(context, name, shape, use);
  else
    base_.read(context, found->second, shape, use);
}

}  // namespace tadapt

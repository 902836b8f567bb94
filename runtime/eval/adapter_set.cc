#include "runtime/eval/adapter_set.h"

#include "kernels/core/memory.h"
#include "kernels/pointwise.h"
#include "runtime/adapter/grown.h"

namespace tadapt {

AdapterSet::AdapterSet(Context& context, const AdapterBundle& bundle, DType compute) : beside_(bundle.beside) {
  for (const AdapterBundle::Layer& layer : bundle.layers) {
    auto adapter = make_adapter(bundle.type, layer.shape, {.dtype = compute, .gradients = AdapterGradients::kNone});
    const DeviceView masters(context, layer.store->master(0));
    adapter->prepare(context, parameter_views(layer.store->group(0), masters.tensor()));
    adapters_.emplace(layer.layer, std::move(adapter));
  }
}

std::vector<int> AdapterSet::layers() const {
  std::vector<int> layers;
  for (const auto& [layer, adapter] : adapters_) layers.push_back(layer);
  return layers;
}

Splice AdapterSet::splice(int layers, int begin, int end) {
  Splice splice = uniform_splice(layers, {});
  for (int layer = begin; layer < end; ++layer)
    if (has(layer)) splice[static_cast<std::size_t>(layer)] = {.mlp = beside_, .adapter = this};
  return splice;
}

Tensor AdapterSet::output(Context& context, int layer, const Tensor& mlp_in) {
  const Adapter& adapter = *adapters_.at(layer);
  last_activations_ = grown(context, activations_, DType::kFloat32, mlp_in.size(0), adapter.shape().features);
  const Tensor output = grown(context, output_, DType::kFloat32, mlp_in.size(0), adapter.shape().model_width);
  adapter.forward(context, mlp_in, last_activations_, output);
  return output;
}

void AdapterSet::add_output(Context& context, int layer, const TokenBatch& batch, const Tensor& mlp_in,
                            const Tensor& mlp_out) {
  const Tensor branch = output(context, layer, mlp_in);
  if (listener_) listener_(layer, batch, last_activations_);
  add_to(context, branch, mlp_out);
}

}  // namespace tadapt

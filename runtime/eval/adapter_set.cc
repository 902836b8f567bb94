#include "runtime/eval/adapter_set.h"

#include "kernels/pointwise.h"

namespace tadapt {
namespace {

/// [rows, width] over `memory`, which is made larger when it must.
Tensor matrix(Buffer& memory, std::int64_t rows, std::int64_t width) {
  if (memory.tensor().elements() < rows * width) memory = Buffer(Device::kCpu, DType::kFloat32, {rows * width});
  return memory.tensor().rows(0, rows * width).reshaped({rows, width});
}

}  // namespace

AdapterSet::AdapterSet(Context& context, const AdapterBundle& bundle, DType compute) {
  for (const AdapterBundle::Layer& layer : bundle.layers) {
    auto adapter = make_adapter(bundle.type, layer.shape, {compute});
    adapter->prepare(context, layer.store->master_views(0));
    adapters_.emplace(layer.layer, std::move(adapter));
  }
}

std::vector<int> AdapterSet::layers() const {
  std::vector<int> layers;
  for (const auto& [layer, adapter] : adapters_) layers.push_back(layer);
  return layers;
}

Tensor AdapterSet::output(Context& context, int layer, const Tensor& mlp_in) {
  const Adapter& adapter = *adapters_.at(layer);
  last_activations_ = matrix(activations_, mlp_in.size(0), adapter.shape().features);
  const Tensor output = matrix(output_, mlp_in.size(0), adapter.shape().model_width);
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

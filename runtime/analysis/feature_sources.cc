#include "runtime/analysis/feature_sources.h"

#include <algorithm>
#include <cmath>

#include "data/model_files.h"
#include "kernels/core/memory.h"
#include "kernels/core/random.h"
#include "kernels/pointwise.h"
#include "runtime/adapter/grown.h"

namespace tadapt {
namespace {

/// Adapters where there are some; elsewhere the target's own MLP.
Splice adapter_splice(int layers, AdapterSet& adapters) {
  Splice splice = uniform_splice(layers, {});
  for (const int layer : adapters.layers())
    splice[static_cast<std::size_t>(layer)] = {.mlp = MlpSource::kBase, .adapter = &adapters};
  return splice;
}

Segment whole(const Decoder& decoder, Splice splice) {
  return {.splice = std::move(splice), .begin = 0, .end = decoder.config().layers};
}

float number_of(const Tensor& tensor, std::int64_t index) {
  switch (tensor.dtype()) {
    case DType::kFloat32:
      return static_cast<const float*>(tensor.data())[index];
    case DType::kBFloat16:
      return static_cast<float>(static_cast<const bfloat16*>(tensor.data())[index]);
    case DType::kFloat16:
      return static_cast<float>(static_cast<const float16*>(tensor.data())[index]);
    default:
      throw DataError("weights of {} numbers; expected float32, bfloat16 or float16", name(tensor.dtype()));
  }
}

/// [N, D] float32: these rows of [d_ff, D], or columns of [D, d_ff].
Buffer picked(const Tensor& weights, const std::vector<std::int32_t>& ids, int dimension) {
  const std::int64_t width = weights.size(1 - dimension);
  Buffer rows(Device::kCpu, DType::kFloat32, {static_cast<std::int64_t>(ids.size()), width});
  auto out = rows.span<float>().begin();
  for (const std::int32_t id : ids)
    for (std::int64_t d = 0; d < width; ++d)
      *out++ = number_of(weights, dimension == 0 ? id * width + d : d * weights.size(1) + id);
  return rows;
}

}  // namespace

AdapterFeatures::AdapterFeatures(Context& context, const Decoder& pair, const AdapterBundle& bundle, DType compute)
    : context_(context),
      pair_(pair),
      bundle_(bundle),
      adapters_(context, bundle, compute),
      segment_(whole(pair, adapter_splice(pair.config().layers, adapters_))),
      runner_(context, pair) {}

std::vector<FeatureSource::Layer> AdapterFeatures::layers() const {
  std::vector<Layer> layers;
  for (const int layer : adapters_.layers()) layers.push_back({layer, adapters_.shape(layer).features});
  return layers;
}

void AdapterFeatures::run(const TokenBatch& batch, const ActivationSink& sink) {
  adapters_.listen([&](int layer, const TokenBatch&, const Tensor& a) { sink(context_, layer, a); });
  runner_.run(std::span(&segment_, 1), batch, {});
  adapters_.listen({});
}

std::vector<std::int32_t> AdapterFeatures::ids(int layer) const {
  std::vector<std::int32_t> ids(static_cast<std::size_t>(adapters_.shape(layer).features));
  for (std::size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<std::int32_t>(i);
  return ids;
}

Tensor AdapterFeatures::directions(int layer) const {
  const auto found = std::ranges::find(bundle_.layers, layer, &AdapterBundle::Layer::layer);
  return found->store->master_views(0)["W_dec"];
}

std::vector<std::int32_t> drawn_neurons(std::int64_t count, std::int64_t all, std::uint64_t seed, int layer) {
  const RandomStream random(seed, RandomPurpose::kNeurons, 0, static_cast<std::uint64_t>(layer));
  std::vector<std::pair<std::uint64_t, std::int32_t>> draws;
  for (std::int32_t id = 0; id < all; ++id) draws.emplace_back(random.bits64(static_cast<std::uint32_t>(id)), id);
  std::ranges::sort(draws);
  std::vector<std::int32_t> ids;
  for (std::int64_t i = 0; i < count; ++i) ids.push_back(draws[static_cast<std::size_t>(i)].second);
  std::ranges::sort(ids);
  return ids;
}

NeuronFeatures::NeuronFeatures(Context& context, const Decoder& model, const std::filesystem::path& directory,
                               const Choice& choice)
    : context_(context),
      host_(Context::cpu(context.threads())),
      model_(model),
      choice_(choice),
      segment_(whole(model, uniform_splice(model.config().layers, {}))),
      runner_(context, model) {
  const DecoderConfig& config = model.config();
  if (choice.count > config.mlp_width)
    throw ConfigError("--neurons: expected at most the {} of an MLP of {}, found {}", config.mlp_width,
                      directory.string(), choice.count);
  const ModelFiles files(directory);
  const TensorNames& names = config.architecture->names;
  for (int layer = 0; layer < config.layers; ++layer) {
    Neurons& neurons = neurons_[layer];
    neurons.ids = drawn_neurons(choice.count, config.mlp_width, choice.seed, layer);
    const auto pack = [&](std::string_view name) {
      const Buffer rows = picked(files.tensor(layer_tensor(name, layer)), neurons.ids, 0);
      const DeviceView there(context, rows.tensor());
      return pack_weights(context, there.tensor(), Layout::kOutputInput, model.compute(), Directions::kForward);
    };
    neurons.gate = pack(names.gate);
    neurons.up = pack(names.up);
    neurons.directions = picked(files.tensor(layer_tensor(names.down, layer)), neurons.ids, 1);
  }
}

std::vector<FeatureSource::Layer> NeuronFeatures::layers() const {
  std::vector<Layer> layers;
  for (const auto& [layer, neurons] : neurons_) layers.push_back({layer, choice_.count});
  return layers;
}

void NeuronFeatures::run(const TokenBatch& batch, const ActivationSink& sink) {
  RunReads reads;
  reads.observe = [&](const Reading& reading) {
    if (reading.point != ReadPoint::kMlpIn) return;
    const Neurons& neurons = neurons_.at(reading.layer);
    const std::int64_t tokens = reading.values.size(0);
    const Tensor gate = grown(context_, gate_, DType::kFloat32, tokens, choice_.count);
    const Tensor up = grown(context_, up_, DType::kFloat32, tokens, choice_.count);
    matmul(context_, reading.values, neurons.gate, Tensor(), Epilogue::kNone, gate);
    matmul(context_, reading.values, neurons.up, Tensor(), Epilogue::kNone, up);
    swiglu(context_, gate, up, gate);
    std::vector<float> hidden = on_host<float>(context_, gate);
    for (float& h : hidden) h = h < 0.0f ? (choice_.rule == NeuronRule::kAbsolute ? -h : 0.0f) : h;
    sink(host_, reading.layer, Tensor::of(std::span(hidden), gate.shape()));
  };
  runner_.run(std::span(&segment_, 1), batch, reads);
}

}  // namespace tadapt

#include "runtime/model/decoder_weights.h"

#include "kernels/core/memory.h"
#include "kernels/pointwise.h"

namespace tadapt {
namespace {

/// Tensors of one model directory, checked against the shapes its config.json promises.
class Loader {
 public:
  Loader(Context& context, const ModelFiles& model, DType compute)
      : context_(context), model_(model), compute_(compute) {}

  Tensor tensor(const std::string& name, Shape shape) const {
    const Tensor found = model_.tensor(name);
    const auto file = [&] { return model_.file_of(name).path().string(); };
    if (found.shape() != shape) {
      throw DataError("{}: tensor {} is {}, config.json makes it {}", file(), name, found.shape().to_string(),
                      shape.to_string());
    }
    const DType dtype = found.dtype();
    if (dtype != DType::kFloat32 && dtype != DType::kBFloat16 && dtype != DType::kFloat16) {
      throw DataError("{}: tensor {} is {}, expected F32, F16 or BF16", file(), name, tadapt::name(dtype));
    }
    return found;
  }
  PackedWeights product(const std::string& name, std::int64_t outputs, std::int64_t inputs) const {
    const DeviceView weights(context_, tensor(name, {outputs, inputs}));
    return pack_weights(context_, weights.tensor(), Layout::kOutputInput, compute_);
  }
  Buffer vector(const std::string& name, std::int64_t size) const {
    Buffer made(context_.device(), DType::kFloat32, {size});
    convert(context_, DeviceView(context_, tensor(name, {size})).tensor(), made.tensor());
    return made;
  }
  Buffer copy(const std::string& name, Shape shape) const {
    const Tensor from = tensor(name, shape);
    Buffer made(context_.device(), from.dtype(), shape);
    tadapt::copy(context_, from, made.tensor());
    synchronize(context_);
    return made;
  }

 private:
  Context& context_;
  const ModelFiles& model_;
  DType compute_;
};

Buffer optional_bias(const Loader& load, std::string_view pattern, int layer, std::int64_t size) {
  return pattern.empty() ? Buffer() : load.vector(layer_tensor(pattern, layer), size);
}

AttentionWeights load_attention(const Loader& load, const DecoderConfig& config, int layer) {
  const TensorNames& names = config.architecture->names;
  const std::int64_t width = config.width, query = config.query_width(), key = config.key_width();
  return {.norm = load.vector(layer_tensor(names.attention_norm, layer), width),
          .query = load.product(layer_tensor(names.query, layer), query, width),
          .key = load.product(layer_tensor(names.key, layer), key, width),
          .value = load.product(layer_tensor(names.value, layer), key, width),
          .out = load.product(layer_tensor(names.attention_out, layer), width, query),
          .query_bias = optional_bias(load, names.query_bias, layer, query),
          .key_bias = optional_bias(load, names.key_bias, layer, key),
          .value_bias = optional_bias(load, names.value_bias, layer, key)};
}

}  // namespace

TrunkWeights load_trunk(Context& context, const ModelFiles& model, const DecoderConfig& config, DType compute) {
  const Loader load(context, model, compute);
  const TensorNames& names = config.architecture->names;
  TrunkWeights trunk;
  trunk.embeddings = load.copy(std::string(names.embeddings), {config.vocabulary, config.width});
  for (int layer = 0; layer < config.layers; ++layer) {
    trunk.layers.push_back({.attention = load_attention(load, config, layer),
                            .mlp_norm = load.vector(layer_tensor(names.mlp_norm, layer), config.width)});
  }
  trunk.final_norm = load.vector(std::string(names.final_norm), config.width);
  const std::string_view head = config.tied_head ? names.embeddings : names.head;
  trunk.head = load.product(std::string(head), config.vocabulary, config.width);
  return trunk;
}

SharedMlps load_mlps(Context& context, const ModelFiles& model, const DecoderConfig& config, DType compute) {
  const Loader load(context, model, compute);
  const TensorNames& names = config.architecture->names;
  SharedMlps mlps;
  for (int layer = 0; layer < config.layers; ++layer) {
    mlps.push_back(std::make_shared<const MlpWeights>(
        MlpWeights{.gate = load.product(layer_tensor(names.gate, layer), config.mlp_width, config.width),
                   .up = load.product(layer_tensor(names.up, layer), config.mlp_width, config.width),
                   .down = load.product(layer_tensor(names.down, layer), config.width, config.mlp_width)}));
  }
  return mlps;
}

}  // namespace tadapt

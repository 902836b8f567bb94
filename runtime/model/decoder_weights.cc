#include "runtime/model/decoder_weights.h"

#include "kernels/core/memory.h"
#include "kernels/pointwise.h"

namespace tadapt {
namespace {

/// Tensors of one source in the forms that a decoder keeps.
class Loader {
 public:
  Loader(Context& context, const WeightSource& source, const DecoderCompute& compute)
      : context_(context), source_(source), compute_(compute) {}

  PackedWeights product(const std::string& name, std::int64_t outputs, std::int64_t inputs) const {
    PackedWeights packed;
    source_.read(context_, name, {outputs, inputs}, [&](const Tensor& numbers) {
      packed = pack_weights(context_, numbers, Layout::kOutputInput, compute_.dtype, compute_.directions);
      synchronize(context_);
    });
    return packed;
  }
  Buffer vector(const std::string& name, std::int64_t size) const {
    Buffer made(context_.device(), DType::kFloat32, {size});
    source_.read(context_, name, {size}, [&](const Tensor& numbers) {
      convert(context_, numbers, made.tensor());
      synchronize(context_);
    });
    return made;
  }
  Buffer table(const std::string& name, Shape shape) const {
    Buffer made;
    source_.read(context_, name, shape, [&](const Tensor& numbers) {
      made = Buffer(context_.device(), numbers.dtype(), shape);
      copy(context_, numbers, made.tensor());
      synchronize(context_);
    });
    return made;
  }

 private:
  Context& context_;
  const WeightSource& source_;
  DecoderCompute compute_;
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

TrunkWeights load_trunk(Context& context, const WeightSource& source, const DecoderConfig& config,
                        const DecoderCompute& compute) {
  const Loader load(context, source, compute);
  const TensorNames& names = config.architecture->names;
  TrunkWeights trunk;
  if (compute.layers.contains(0))
    trunk.embeddings = load.table(std::string(names.embeddings), {config.vocabulary, config.width});
  for (int layer = 0; layer < config.layers; ++layer) {
    if (!compute.layers.contains(layer)) {
      trunk.layers.emplace_back();
      continue;
    }
    trunk.layers.push_back({.attention = load_attention(load, config, layer),
                            .mlp_norm = load.vector(layer_tensor(names.mlp_norm, layer), config.width)});
  }
  if (!compute.layers.contains(config.layers - 1)) return trunk;
  trunk.final_norm = load.vector(std::string(names.final_norm), config.width);
  const std::string_view head = config.tied_head ? names.embeddings : names.head;
  trunk.head = load.product(std::string(head), config.vocabulary, config.width);
  return trunk;
}

SharedMlps load_mlps(Context& context, const WeightSource& source, const DecoderConfig& config,
                     const DecoderCompute& compute) {
  const Loader load(context, source, compute);
  const TensorNames& names = config.architecture->names;
  SharedMlps mlps;
  for (int layer = 0; layer < config.layers; ++layer) {
    if (!compute.layers.contains(layer)) {
      mlps.push_back(nullptr);
      continue;
    }
    mlps.push_back(std::make_shared<const MlpWeights>(
        MlpWeights{.gate = load.product(layer_tensor(names.gate, layer), config.mlp_width, config.width),
                   .up = load.product(layer_tensor(names.up, layer), config.mlp_width, config.width),
                   .down = load.product(layer_tensor(names.down, layer), config.width, config.mlp_width)}));
  }
  return mlps;
}

}  // namespace tadapt

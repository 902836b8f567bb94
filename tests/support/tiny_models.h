// Model directories of any small shape with random weights, for tests that need models and not their quality.
#pragma once

#include <fmt/format.h>

#include <cmath>
#include <map>
#include <memory>
#include <string>

#include "data/safetensors.h"
#include "kernels/core/random.h"
#include "runtime/model/decoder_config.h"

namespace tadapt::testing {

struct TinyModel {
  int layers = 3;
  std::int64_t width = 24;
  std::int64_t mlp_width = 40;
  std::int64_t heads = 4;
  std::int64_t kv_heads = 2;
  std::int64_t vocabulary = 50;
  std::int64_t max_positions = 512;
  bool tied_head = false;
  std::uint64_t seed = 1;
};

inline std::string tiny_config(const TinyModel& model) {
  return fmt::format(
      R"({{"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_act": "silu", "hidden_size": {},
 "intermediate_size": {}, "num_hidden_layers": {}, "num_attention_heads": {}, "num_key_value_heads": {},
 "vocab_size": {}, "max_position_embeddings": {}, "tie_word_embeddings": {}, "rms_norm_eps": 1e-06,
 "rope_theta": 10000.0, "torch_dtype": "float32"}})",
      model.width, model.mlp_width, model.layers, model.heads, model.kv_heads, model.vocabulary, model.max_positions,
      model.tied_head);
}

/// A model's tensors by name, float32, with the memory behind them.
struct TinyTensors {
  std::map<std::string, Buffer> buffers;

  NamedTensors views() const {
    NamedTensors named;
    for (const auto& [name, buffer] : buffers) named.emplace(name, buffer.tensor());
    return named;
  }
};

/// Uniform in center ± spread, a function of (seed, tensor number).
inline Buffer random_tensor(Shape shape, float center, float spread, std::uint64_t seed, std::uint64_t number) {
  Buffer made(Device::kCpu, DType::kFloat32, shape);
  const RandomStream random(seed, RandomPurpose::kTest, 0, number);
  std::uint32_t index = 0;
  for (float& value : made.span<float>()) value = center + spread * (2.0f * random.uniform(index++) - 1.0f);
  return made;
}

inline TinyTensors tiny_tensors(const TinyModel& model) {
  const DecoderConfig config = parse_decoder_config(tiny_config(model), "config.json");
  const TensorNames& names = config.architecture->names;
  const std::int64_t width = config.width, query = config.query_width(), key = config.key_width();
  TinyTensors made;
  std::uint64_t number = 0;
  const auto add = [&](std::string name, Shape shape, float center, float spread) {
    made.buffers.emplace(std::move(name), random_tensor(shape, center, spread, model.seed, number++));
  };
  const auto weights = [&](std::string_view pattern, int layer, std::int64_t outputs, std::int64_t inputs) {
    add(layer_tensor(pattern, layer), {outputs, inputs}, 0.0f, 2.5f / std::sqrt(static_cast<float>(inputs)));
  };
  add(std::string(names.embeddings), {config.vocabulary, width}, 0.0f, 1.5f);
  add(std::string(names.final_norm), {width}, 1.0f, 0.5f);
  if (!config.tied_head) add(std::string(names.head), {config.vocabulary, width}, 0.0f, 0.5f);
  for (int layer = 0; layer < config.layers; ++layer) {
    add(layer_tensor(names.attention_norm, layer), {width}, 1.0f, 0.5f);
    add(layer_tensor(names.mlp_norm, layer), {width}, 1.0f, 0.5f);
    add(layer_tensor(names.query_bias, layer), {query}, 0.0f, 0.5f);
    add(layer_tensor(names.key_bias, layer), {key}, 0.0f, 0.5f);
    add(layer_tensor(names.value_bias, layer), {key}, 0.0f, 0.5f);
    weights(names.query, layer, query, width);
    weights(names.key, layer, key, width);
    weights(names.value, layer, key, width);
    weights(names.attention_out, layer, width, query);
    weights(names.gate, layer, config.mlp_width, width);
    weights(names.up, layer, config.mlp_width, width);
    weights(names.down, layer, width, config.mlp_width);
  }
  return made;
}

/// Writes `directory` with config.json and model.safetensors.
inline void write_tiny_model(const std::filesystem::path& directory, const TinyModel& model,
                             const NamedTensors& tensors) {
  RealFileSystem files;
  files.make_directories(directory);
  write_atomically(files, directory / "config.json", tiny_config(model));
  write_safetensors(files, directory / "model.safetensors", tensors);
}

inline void write_tiny_model(const std::filesystem::path& directory, const TinyModel& model) {
  const TinyTensors tensors = tiny_tensors(model);
  write_tiny_model(directory, model, tensors.views());
}

/// Token ids below `vocabulary`, a function of (seed, length).
inline std::vector<std::int32_t> random_ids(std::int64_t length, std::int64_t vocabulary, std::uint64_t seed) {
  const RandomStream random(seed, RandomPurpose::kTest, 1, static_cast<std::uint64_t>(length));
  std::vector<std::int32_t> ids;
  for (std::int64_t i = 0; i < length; ++i) {
    ids.push_back(
        static_cast<std::int32_t>(random.below(static_cast<std::uint32_t>(i), static_cast<std::uint64_t>(vocabulary))));
  }
  return ids;
}

}  // namespace tadapt::testing

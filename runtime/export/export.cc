#include "runtime/export/export.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <vector>

#include "data/json.h"
#include "data/model_files.h"
#include "runtime/bundle/load_export.h"
#include "runtime/export/export_writer.h"
#include "runtime/model/decoder_config.h"

namespace tadapt {
namespace {
using Json = nlohmann::ordered_json;
namespace fs = std::filesystem;

std::string authors_config(FileSystem& files, const fs::path& target, std::int64_t features) {
  const auto path = target / "config.json";
  auto config = parse_json(read_text(files, path), path);
  config["architectures"] = {"Qwen2ForCausalLMWithTranscoder"};
  config["transcoder_n_features"] = features;
  config["transcoder_dec_bias"] = true;
  return config.dump(2) + "\n";
}

/// The target's tensors; where the adapters run beside the base's MLPs, those of layers with an adapter are the base's.
NamedTensors hybrid_tensors(const AdapterBundle& bundle, const DecoderConfig& config, const ModelFiles& base,
                            const ModelFiles& target) {
  NamedTensors tensors;
  for (const std::string& name : target.names()) tensors[name] = target.tensor(name);
  if (bundle.beside == MlpSource::kTarget) return tensors;
  const TensorNames& names = config.architecture->names;
  for (const AdapterBundle::Layer& layer : bundle.layers) {
    for (const std::string_view pattern : {names.gate, names.up, names.down}) {
      const std::string name = layer_tensor(pattern, layer.layer);
      const Tensor replacement = base.tensor(name);
      const Tensor replaced = target.tensor(name);
      if (replacement.shape() != replaced.shape())
        throw DataError("{}: tensor {} is {}, the target's is {}", base.file_of(name).path().string(), name,
                        replacement.shape(), replaced.shape());
      tensors[name] = replacement;
    }
  }
  return tensors;
}

/// Adds the transcoders of all layers; zeros where there is no adapter. What they need lives in `owned`.
void add_transcoders(NamedTensors& tensors, const AdapterBundle& bundle, int layers, std::vector<Buffer>& owned) {
  const AdapterShape shape = bundle.layers.front().shape;
  const auto zeros = [&](Shape zero_shape) {
    return owned.emplace_back(Device::kCpu, DType::kFloat32, zero_shape).tensor();
  };
  for (int index = 0; index < layers; ++index) {
    const std::string prefix = authors_prefix(index);
    const auto layer = std::ranges::find(bundle.layers, index, &AdapterBundle::Layer::layer);
    if (layer == bundle.layers.end()) {
      tensors[prefix + "enc.weight"] = zeros({shape.features, shape.model_width});
      tensors[prefix + "enc.bias"] = zeros({shape.features});
      tensors[prefix + "dec.weight"] = zeros({shape.model_width, shape.features});
      tensors[prefix + "dec.bias"] = zeros({shape.model_width});
      continue;
    }
    const ParameterTensors masters = layer->store->master_views(0);
    tensors[prefix + "enc.weight"] = masters["W_enc"];
    tensors[prefix + "enc.bias"] = masters["b_enc"];
    tensors[prefix + "dec.weight"] = owned.emplace_back(transposed(masters["W_dec"])).tensor();
    tensors[prefix + "dec.bias"] = masters["b_dec"];
  }
}

}  // namespace

void require_transcoders(const AdapterBundle& bundle, const char* format) {
  if (bundle.type != "transcoder" || bundle.layers.empty())
    throw ConfigError("--format {}: holds transcoders only, these are {} adapters of '{}'", format,
                      bundle.layers.size(), bundle.type);
}

AdapterShape shape_of_transcoders(const AdapterBundle& bundle, const char* format) {
  require_transcoders(bundle, format);
  const AdapterShape shape = bundle.layers.front().shape;
  for (const AdapterBundle::Layer& layer : bundle.layers)
    if (layer.shape.features != shape.features)
      throw ConfigError("--format {}: one dictionary size for all layers, found {} and {} features", format,
                        shape.features, layer.shape.features);
  return shape;
}

ExportFormat parse_export_format(const std::string& text) {
  for (const auto& [name, format] : {std::pair{"adapters", ExportFormat::kAdapters},
                                     {"authors", ExportFormat::kAuthors},
                                     {"circuit-tracer", ExportFormat::kCircuitTracer},
                                     {"sae-lens", ExportFormat::kSaeLens},
                                     {"sparsify", ExportFormat::kSparsify}})
    if (text == name) return format;
  throw ConfigError("--format: '{}' is not one of: adapters, authors, circuit-tracer, sae-lens, sparsify", text);
}

std::uint64_t export_adapters(FileSystem& files, const AdapterBundle& bundle, const fs::path& out) {
  ExportWriter writer(files, out, bundle.step);
  NamedTensors tensors;
  for (const AdapterBundle::Layer& layer : bundle.layers) {
    const ParameterTensors masters = layer.store->master_views(0);
    for (const auto& [name, tensor] : masters.entries())
      tensors[fmt::format("layers.{}.{}", layer.layer, name)] = tensor;
  }
  const std::uint64_t bytes = writer.write_tensors(kAdaptersFile, tensors, "tadapt");
  writer.finish(bundle, "adapters");
  return bytes;
}

std::uint64_t export_authors(FileSystem& files, const AdapterBundle& bundle, const fs::path& base,
                             const fs::path& target, const fs::path& out) {
  const AdapterShape shape = shape_of_transcoders(bundle, "authors");
  require_models_fit(files, bundle, base, target);
  ExportWriter writer(files, out, bundle.step);
  const DecoderConfig config = load_decoder_config(files, target);
  const ModelFiles base_files(base), target_files(target);
  NamedTensors tensors = hybrid_tensors(bundle, config, base_files, target_files);
  std::vector<Buffer> owned;
  add_transcoders(tensors, bundle, config.layers, owned);
  const std::uint64_t bytes = writer.write_tensors(kModelFile, tensors, "pt");
  for (const char* name : {"tokenizer.json", "tokenizer_config.json", "generation_config.json"})
    if (files.exists(target / name)) writer.write_text(name, read_text(files, target / name));
  writer.write_text("config.json", authors_config(files, target, shape.features));
  writer.finish(bundle, "authors");
  return bytes;
}

}  // namespace tadapt

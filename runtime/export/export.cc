#include "runtime/export/export.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <vector>

#include "data/json.h"
#include "data/model_files.h"

namespace tadapt {
namespace {
using Json = nlohmann::ordered_json;

/// [D,F] of [F,D], in memory of its own.
Buffer transposed(const Tensor& matrix) {
  const std::int64_t rows = matrix.size(0), columns = matrix.size(1);
  Buffer result(Device::kCpu, DType::kFloat32, {columns, rows});
  const auto from = matrix.span<float>();
  const auto to = result.span<float>();
  for (std::int64_t r = 0; r < rows; ++r)
    for (std::int64_t c = 0; c < columns; ++c)
      to[static_cast<std::size_t>(c * rows + r)] = from[static_cast<std::size_t>(r * columns + c)];
  return result;
}

bool is_mlp_tensor(const std::string& name) { return name.find(".mlp.") != std::string::npos; }

/// The layer of "model.layers.{ℓ}.mlp.…".
int layer_of(const std::string& name) {
  constexpr std::string_view kPrefix = "model.layers.";
  return std::stoi(name.substr(kPrefix.size()));
}

const AdapterBundle::Layer* find_layer(const AdapterBundle& bundle, int layer) {
  const auto found = std::ranges::find(bundle.layers, layer, &AdapterBundle::Layer::layer);
  return found == bundle.layers.end() ? nullptr : &*found;
}

/// A fresh, empty place for an export.
void prepare_out(FileSystem& files, const std::filesystem::path& out) {
  if (files.exists(out) && !files.list(out).empty())
    throw WriteError("{}: exists and is not empty; an export needs a new or empty folder", out.string());
  files.make_directories(out);
}

std::string authors_config(FileSystem& files, const std::filesystem::path& target, std::int64_t features) {
  const auto path = target / "config.json";
  auto config = parse_json(read_text(files, path), path);
  config["architectures"] = {"Qwen2ForCausalLMWithTranscoder"};
  config["transcoder_n_features"] = features;
  config["transcoder_dec_bias"] = true;
  return config.dump(2) + "\n";
}

void copy_tokenizer(FileSystem& files, const std::filesystem::path& from, const std::filesystem::path& to) {
  for (const char* name : {"tokenizer.json", "tokenizer_config.json", "generation_config.json"})
    if (files.exists(from / name)) write_atomically(files, to / name, read_text(files, from / name));
}

}  // namespace

ExportFormat parse_export_format(const std::string& text) {
  if (text == "adapters") return ExportFormat::kAdapters;
  if (text == "authors") return ExportFormat::kAuthors;
  throw ConfigError("--format: '{}' is not one of: adapters, authors", text);
}

std::uint64_t export_adapters(FileSystem& files, const AdapterBundle& bundle, const std::filesystem::path& out) {
  prepare_out(files, out);
  NamedTensors tensors;
  Json layers = Json::array();
  for (const AdapterBundle::Layer& layer : bundle.layers) {
    layers.push_back({{"layer", layer.layer}, {"features", layer.shape.features}, {"width", layer.shape.model_width}});
    const ParameterTensors masters = layer.store->master_views(0);
    for (const auto& [name, tensor] : masters.entries())
      tensors[fmt::format("layers.{}.{}", layer.layer, name)] = tensor;
  }
  const SafetensorsRecord record =
      write_safetensors(files, out / "adapters.safetensors", tensors, {{"format", "tadapt"}});
  const Json description = {{"format_version", 1},
                            {"type", bundle.type},
                            {"step", bundle.step},
                            {"base", bundle.base_fingerprint},
                            {"target", bundle.target_fingerprint},
                            {"layers", layers}};
  write_atomically(files, out / "adapters.json", description.dump(2) + "\n");
  return record.bytes;
}

std::uint64_t export_authors(FileSystem& files, const AdapterBundle& bundle, const std::filesystem::path& base,
                             const std::filesystem::path& target, const std::filesystem::path& out) {
  if (bundle.type != "transcoder" || bundle.layers.empty())
    throw ConfigError("--format authors: holds transcoders only, these are {} adapters of '{}'", bundle.layers.size(),
                      bundle.type);
  const AdapterShape shape = bundle.layers.front().shape;
  for (const AdapterBundle::Layer& layer : bundle.layers)
    if (layer.shape.features != shape.features)
      throw ConfigError("--format authors: one dictionary size for all layers, found {} and {} features",
                        shape.features, layer.shape.features);
  prepare_out(files, out);
  const ModelFiles base_files(base), target_files(target);
  NamedTensors tensors;
  int layers = 0;
  for (const std::string& name : target_files.names()) {
    const bool from_base = is_mlp_tensor(name) && find_layer(bundle, layer_of(name)) != nullptr;
    tensors[name] = from_base ? base_files.tensor(name) : target_files.tensor(name);
    if (is_mlp_tensor(name)) layers = std::max(layers, layer_of(name) + 1);
  }
  std::vector<Buffer> owned;
  const auto zeros = [&](Shape zero_shape) {
    return owned.emplace_back(Device::kCpu, DType::kFloat32, zero_shape).tensor();
  };
  for (int index = 0; index < layers; ++index) {
    const std::string prefix = fmt::format("model.layers.{}.mlp.transcoder_", index);
    const AdapterBundle::Layer* layer = find_layer(bundle, index);
    if (layer == nullptr) {
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
  const SafetensorsRecord record = write_safetensors(files, out / "model.safetensors", tensors, {{"format", "pt"}});
  copy_tokenizer(files, target, out);
  write_atomically(files, out / "config.json", authors_config(files, target, shape.features));
  return record.bytes;
}

}  // namespace tadapt

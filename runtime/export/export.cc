#include "runtime/export/export.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <vector>

#include "data/checkpoint_manifest.h"
#include "data/json.h"
#include "data/model_files.h"
#include "runtime/bundle/load_export.h"
#include "runtime/export/staged_directory.h"
#include "runtime/model/decoder_config.h"

namespace tadapt {
namespace {
using Json = nlohmann::ordered_json;
namespace fs = std::filesystem;

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

/// The files of an export, their checksums kept as they are written.
class ExportWriter {
 public:
  ExportWriter(FileSystem& files, const fs::path& out, std::int64_t step) : files_(files), folder_(files, out) {
    checksums_.step = step;
  }

  std::uint64_t write_tensors(const char* name, const NamedTensors& tensors, const char* format) {
    const SafetensorsRecord record = write_safetensors(files_, folder_.path() / name, tensors, {{"format", format}});
    checksums_.files[name] = record;
    return record.bytes;
  }
  void write_text(const char* name, const std::string& text) {
    write_atomically(files_, folder_.path() / name, text);
    checksums_.files[name] = {.bytes = text.size(), .crc32c = crc32c(std::as_bytes(std::span(text))), .tensors = {}};
  }
  void finish(const AdapterBundle& bundle, const char* format) {
    Json layers = Json::array();
    for (const AdapterBundle::Layer& layer : bundle.layers)
      layers.push_back(
          {{"layer", layer.layer}, {"features", layer.shape.features}, {"width", layer.shape.model_width}});
    Json description = {{"format_version", kExportFormatVersion},
                        {"format", format},
                        {"type", bundle.type},
                        {"step", bundle.step},
                        {"base", bundle.base_fingerprint},
                        {"target", bundle.target_fingerprint},
                        {"layers", layers}};
    if (!bundle.edits.empty()) description["edits"] = bundle.edits;
    if (bundle.beside == MlpSource::kTarget) description["beside"] = "target";
    write_text(kExportDescription, description.dump(2) + "\n");
    write_atomically(files_, folder_.path() / kExportChecksums, checksums_.to_text());
    folder_.publish();
  }

 private:
  FileSystem& files_;
  StagedDirectory folder_;
  CheckpointManifest checksums_;
};

std::string authors_config(FileSystem& files, const fs::path& target, std::int64_t features) {
  const auto path = target / "config.json";
  auto config = parse_json(read_text(files, path), path);
  config["architectures"] = {"Qwen2ForCausalLMWithTranscoder"};
  config["transcoder_n_features"] = features;
  config["transcoder_dec_bias"] = true;
  return config.dump(2) + "\n";
}

AdapterShape shape_of_transcoders(const AdapterBundle& bundle) {
  if (bundle.type != "transcoder" || bundle.layers.empty())
    throw ConfigError("--format authors: holds transcoders only, these are {} adapters of '{}'", bundle.layers.size(),
                      bundle.type);
  const AdapterShape shape = bundle.layers.front().shape;
  for (const AdapterBundle::Layer& layer : bundle.layers)
    if (layer.shape.features != shape.features)
      throw ConfigError("--format authors: one dictionary size for all layers, found {} and {} features",
                        shape.features, layer.shape.features);
  return shape;
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

ExportFormat parse_export_format(const std::string& text) {
  if (text == "adapters") return ExportFormat::kAdapters;
  if (text == "authors") return ExportFormat::kAuthors;
  throw ConfigError("--format: '{}' is not one of: adapters, authors", text);
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
  const AdapterShape shape = shape_of_transcoders(bundle);
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

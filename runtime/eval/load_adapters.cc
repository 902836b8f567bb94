// load_adapters: the adapters of a run, a checkpoint, an export or a foreign checkpoint, as one bundle.
#include <algorithm>
#include <cstring>

#include "data/checkpoint.h"
#include "data/json.h"
#include "data/model_files.h"
#include "runtime/eval/adapter_set.h"

namespace tadapt {
namespace {

/// A layer with zeroed masters of this shape.
AdapterBundle::Layer empty_layer(const std::string& type, int layer, const AdapterShape& shape) {
  const auto adapter = make_adapter(type, shape, {DType::kFloat32});
  return {.layer = layer,
          .shape = shape,
          .store = std::make_unique<ParameterStore>(Device::kCpu, std::vector{adapter->parameters("layer")})};
}

void copy_checked(const Tensor& from, const Tensor& to, const std::string& file, const std::string& name) {
  if (from.dtype() != to.dtype() || from.shape() != to.shape())
    throw DataError("{}: {}: expected {} {}, found {} {}", file, name, tadapt::name(to.dtype()), to.shape().to_string(),
                    tadapt::name(from.dtype()), from.shape().to_string());
  std::memcpy(to.data(), from.data(), from.bytes());
}

AdapterShape shape_of_encoder(const Tensor& encoder, const std::string& file) {
  if (encoder.rank() != 2) throw DataError("{}: W_enc: expected [F, D], found {}", file, encoder.shape().to_string());
  return {.model_width = encoder.size(1), .features = encoder.size(0)};
}

constexpr std::string_view kOptimizerSuffix = ".optimizer.safetensors";

AdapterBundle from_checkpoint(FileSystem& files, const CheckpointInfo& checkpoint) {
  AdapterBundle bundle{.type = checkpoint.state.value("adapter_type", "transcoder"),
                       .layers = {},
                       .source = "checkpoint " + checkpoint.path.string(),
                       .step = checkpoint.step,
                       .base_fingerprint = checkpoint.state.value("base", ""),
                       .target_fingerprint = checkpoint.state.value("target", "")};
  for (const auto& [file, record] : checkpoint.parts) {
    if (file.ends_with(kOptimizerSuffix)) continue;
    const CheckpointPart part = read_part(files, checkpoint, file);
    const std::string path = (checkpoint.path / file).string();
    const auto encoder = part.tensors.find("W_enc");
    const auto layer_number = part.metadata.find("layer");
    if (encoder == part.tensors.end() || layer_number == part.metadata.end())
      throw DataError("{}: expected a tensor W_enc and the metadata 'layer'", path);
    AdapterBundle::Layer layer =
        empty_layer(bundle.type, std::stoi(layer_number->second), shape_of_encoder(encoder->second.tensor(), path));
    const ParameterTensors masters = layer.store->master_views(0);
    for (const auto& [name, master] : masters.entries()) {
      const auto saved = part.tensors.find(name);
      if (saved == part.tensors.end()) throw DataError("{}: tensor {} is missing", path, name);
      copy_checked(saved->second.tensor(), master, path, name);
    }
    bundle.layers.push_back(std::move(layer));
  }
  std::ranges::sort(bundle.layers, {}, &AdapterBundle::Layer::layer);
  return bundle;
}

AdapterBundle from_run(FileSystem& files, const std::filesystem::path& run_dir,
                       const std::function<void(const std::string&)>& warn) {
  const auto newest = find_checkpoint(files, run_dir / "checkpoints", [&](const auto& path, const auto& reason) {
    warn(fmt::format("WARNING: checkpoint {} is damaged and not used: {}", path.string(), reason));
  });
  if (!newest) throw MissingInputError("{}: the run has no checkpoint that verifies", run_dir.string());
  return from_checkpoint(files, *newest);
}

/// A number of a JSON object that must be there and at least `least`.
std::int64_t integer_of(const nlohmann::json& object, const char* key, std::int64_t least, const std::string& file) {
  if (!object.is_object() || !object.contains(key) || !object.at(key).is_number_integer() ||
      object.at(key).get<std::int64_t>() < least)
    throw DataError("{}: {}: expected an integer of at least {}", file, key, least);
  return object.at(key).get<std::int64_t>();
}

AdapterBundle from_export(FileSystem& files, const std::filesystem::path& directory) {
  const auto description_path = directory / "adapters.json";
  const nlohmann::json description = parse_json(read_text(files, description_path), description_path);
  if (integer_of(description, "format_version", 1, description_path.string()) != 1)
    throw DataError("{}: format_version: expected 1, found {}", description_path.string(),
                    description.at("format_version").dump());
  const SafetensorsFile tensors(directory / "adapters.safetensors");
  AdapterBundle bundle{.type = description.value("type", "transcoder"),
                       .layers = {},
                       .source = "export " + directory.string(),
                       .step = integer_of(description, "step", 0, description_path.string()),
                       .base_fingerprint = description.value("base", ""),
                       .target_fingerprint = description.value("target", "")};
  for (const nlohmann::json& entry : description.value("layers", nlohmann::json::array())) {
    const auto number = static_cast<int>(integer_of(entry, "layer", 0, description_path.string()));
    const AdapterShape shape{.model_width = integer_of(entry, "width", 1, description_path.string()),
                             .features = integer_of(entry, "features", 1, description_path.string())};
    AdapterBundle::Layer layer = empty_layer(bundle.type, number, shape);
    const ParameterTensors masters = layer.store->master_views(0);
    for (const auto& [name, master] : masters.entries()) {
      const std::string full = fmt::format("layers.{}.{}", number, name);
      copy_checked(tensors.tensor(full), master, tensors.path().string(), full);
    }
    bundle.layers.push_back(std::move(layer));
  }
  return bundle;
}

/// A tensor of any float type as fp32 numbers.
std::vector<float> floats(const Tensor& tensor, const std::string& name) {
  std::vector<float> values(static_cast<std::size_t>(tensor.elements()));
  if (tensor.dtype() == DType::kFloat32) {
    std::ranges::copy(tensor.span<float>(), values.begin());
  } else if (tensor.dtype() == DType::kBFloat16) {
    std::ranges::transform(tensor.span<bfloat16>(), values.begin(), [](bfloat16 v) { return static_cast<float>(v); });
  } else {
    throw DataError("{}: expected float32 or bfloat16, found {}", name, tadapt::name(tensor.dtype()));
  }
  return values;
}

AdapterBundle from_authors(const std::filesystem::path& directory, std::int64_t features) {
  const ModelFiles model(directory);
  AdapterBundle bundle;
  bundle.type = "transcoder";
  bundle.source = "authors' checkpoint " + directory.string();
  for (int number = 0;; ++number) {
    const std::string prefix = fmt::format("model.layers.{}.mlp.transcoder_", number);
    if (!model.contains(prefix + "enc.weight")) break;
    const Tensor encoder = model.tensor(prefix + "enc.weight");
    const AdapterShape shape = shape_of_encoder(encoder, prefix + "enc.weight");
    if (shape.features != features)
      throw DataError("{}: {}enc.weight: expected {} features as config.json says, found {}", directory.string(),
                      prefix, features, shape.features);
    AdapterBundle::Layer layer = empty_layer("transcoder", number, shape);
    const ParameterTensors masters = layer.store->master_views(0);
    const auto put = [&](const char* name, const std::string& tensor_name, Shape expected) {
      const Tensor tensor = model.tensor(tensor_name);
      if (tensor.shape() != expected)
        throw DataError("{}: {}: expected {}, found {}", directory.string(), tensor_name, expected.to_string(),
                        tensor.shape().to_string());
      std::ranges::copy(floats(tensor, tensor_name), masters[name].span<float>().begin());
    };
    put("W_enc", prefix + "enc.weight", {shape.features, shape.model_width});
    put("b_enc", prefix + "enc.bias", {shape.features});
    put("b_dec", prefix + "dec.bias", {shape.model_width});
    const Tensor decoder = model.tensor(prefix + "dec.weight");
    if (decoder.shape() != Shape{shape.model_width, shape.features})
      throw DataError("{}: {}dec.weight: expected [{}, {}], found {}", directory.string(), prefix, shape.model_width,
                      shape.features, decoder.shape().to_string());
    const std::vector<float> by_width = floats(decoder, prefix + "dec.weight");
    const auto by_feature = masters["W_dec"].span<float>();
    for (std::int64_t d = 0; d < shape.model_width; ++d)
      for (std::int64_t i = 0; i < shape.features; ++i)
        by_feature[static_cast<std::size_t>(i * shape.model_width + d)] =
            by_width[static_cast<std::size_t>(d * shape.features + i)];
    bundle.layers.push_back(std::move(layer));
  }
  if (bundle.layers.empty()) throw DataError("{}: no transcoder tensors", directory.string());
  return bundle;
}

}  // namespace

AdapterBundle load_adapters(FileSystem& files, const std::filesystem::path& path,
                            const std::function<void(const std::string&)>& warn) {
  if (files.exists(path / "run.json")) return from_run(files, path, warn);
  if (files.exists(path / kManifestName)) return from_checkpoint(files, verify_checkpoint(files, path));
  if (files.exists(path / "adapters.json")) return from_export(files, path);
  if (files.exists(path / "config.json")) {
    const nlohmann::json config = parse_json(read_text(files, path / "config.json"), path / "config.json");
    if (config.is_object() && config.contains("transcoder_n_features"))
      return from_authors(path, integer_of(config, "transcoder_n_features", 1, (path / "config.json").string()));
  }
  throw MissingInputError("{}: holds no adapters: neither a run, a checkpoint, an export nor an authors' checkpoint",
                          path.string());
}

}  // namespace tadapt

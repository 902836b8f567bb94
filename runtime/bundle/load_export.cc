#include "runtime/bundle/load_export.h"

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>

#include "data/checkpoint_manifest.h"
#include "data/json.h"
#include "data/model_files.h"
#include "kernels/core/bfloat16.h"
#include "kernels/core/float16.h"

namespace tadapt {
namespace {
namespace fs = std::filesystem;

/// A tensor of a file by name, checked as far as it can be.
using ReadTensor = std::function<Tensor(const std::string& name)>;

/// A number of a JSON object that must be there and at least `least`.
std::int64_t integer_of(const nlohmann::json& object, const char* key, std::int64_t least, const std::string& file) {
  if (!object.is_object() || !object.contains(key) || !object.at(key).is_number_integer() ||
      object.at(key).get<std::int64_t>() < least)
    throw DataError("{}: {}: expected an integer of at least {}", file, key, least);
  return object.at(key).get<std::int64_t>();
}

std::string text_of(const nlohmann::json& object, const char* key, const std::string& file) {
  if (!object.contains(key) || !object.at(key).is_string()) throw DataError("{}: {}: expected a text", file, key);
  return object.at(key).get<std::string>();
}

template <class T>
void copy_as_floats(const Tensor& from, std::span<float> to) {
  std::ranges::transform(from.span<T>(), to.begin(), [](T value) { return static_cast<float>(value); });
}

/// A tensor of any float type and this shape as fp32 numbers.
std::vector<float> floats(const Tensor& tensor, Shape shape, const std::string& file, const std::string& name) {
  if (tensor.shape() != shape) throw DataError("{}: {}: expected {}, found {}", file, name, shape, tensor.shape());
  std::vector<float> values(static_cast<std::size_t>(tensor.elements()));
  if (tensor.dtype() == DType::kFloat32) {
    copy_as_floats<float>(tensor, values);
  } else if (tensor.dtype() == DType::kBFloat16) {
    copy_as_floats<bfloat16>(tensor, values);
  } else if (tensor.dtype() == DType::kFloat16) {
    copy_as_floats<float16>(tensor, values);
  } else {
    throw DataError("{}: {}: expected float32, float16 or bfloat16, found {}", file, name,
                    tadapt::name(tensor.dtype()));
  }
  return values;
}

AdapterBundle::Layer read_adapters_layer(const std::string& type, int number, const AdapterShape& shape,
                                         const ReadTensor& read, const std::string& file) {
  AdapterBundle::Layer layer = zero_layer(type, number, shape);
  const ParameterTensors masters = layer.store->master_views(0);
  for (const auto& [name, master] : masters.entries()) {
    const std::string full = fmt::format("layers.{}.{}", number, name);
    copy_checked(read(full), master, file, full);
  }
  return layer;
}

AdapterBundle::Layer read_authors_layer(int number, const AdapterShape& shape, const ReadTensor& read,
                                        const std::string& file) {
  AdapterBundle::Layer layer = zero_layer("transcoder", number, shape);
  const ParameterTensors masters = layer.store->master_views(0);
  const auto numbers = [&](const char* name, Shape expected) {
    const std::string full = authors_prefix(number) + name;
    return floats(read(full), expected, file, full);
  };
  const auto put = [&](const char* name, const std::vector<float>& values) {
    std::ranges::copy(values, masters[name].span<float>().begin());
  };
  put("W_enc", numbers("enc.weight", {shape.features, shape.model_width}));
  put("b_enc", numbers("enc.bias", {shape.features}));
  put("b_dec", numbers("dec.bias", {shape.model_width}));
  const std::vector<float> by_width = numbers("dec.weight", {shape.model_width, shape.features});
  const auto by_feature = masters["W_dec"].span<float>();
  for (std::int64_t d = 0; d < shape.model_width; ++d)
    for (std::int64_t i = 0; i < shape.features; ++i)
      by_feature[static_cast<std::size_t>(i * shape.model_width + d)] =
          by_width[static_cast<std::size_t>(d * shape.features + i)];
  return layer;
}

bool is_zero(const AdapterBundle::Layer& layer) {
  return std::ranges::all_of(layer.store->master(0).span<float>(), [](float value) { return value == 0.0f; });
}

CheckpointManifest checksums_of(FileSystem& files, const fs::path& directory) {
  const fs::path path = directory / kExportChecksums;
  return CheckpointManifest::from_text(read_text(files, path), path);
}

const SafetensorsRecord& record_of(const CheckpointManifest& checksums, const fs::path& directory,
                                   const std::string& file) {
  const auto found = checksums.files.find(file);
  if (found == checksums.files.end())
    throw DataError("{}: does not list {}", (directory / kExportChecksums).string(), file);
  return found->second;
}

MlpSource mlp_source(const std::string& text, const std::string& file) {
  if (text == "base") return MlpSource::kBase;
  if (text == "target") return MlpSource::kTarget;
  throw DataError("{}: beside: expected base or target, found {}", file, in_quotes(text));
}

/// adapters.json, compared with its checksum.
nlohmann::json read_description(FileSystem& files, const fs::path& directory) {
  const fs::path path = directory / kExportDescription;
  const nlohmann::json description = parse_json(read_text(files, path), path);
  // The version first: another one may have no checksums.
  if (integer_of(description, "format_version", 1, path.string()) != kExportFormatVersion)
    throw DataError("{}: format_version: expected {}, found {}", path.string(), kExportFormatVersion,
                    description.at("format_version").dump());
  verify_file(files, path, record_of(checksums_of(files, directory), directory, kExportDescription));
  return description;
}

}  // namespace

std::string authors_prefix(int layer) { return fmt::format("model.layers.{}.mlp.transcoder_", layer); }

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

AdapterBundle load_export(FileSystem& files, const fs::path& directory) {
  const nlohmann::json description = read_description(files, directory);
  const std::string source = (directory / kExportDescription).string();
  const std::string format = text_of(description, "format", source);
  if (format != "adapters" && format != "authors")
    throw DataError("{}: format: expected adapters or authors, found {}", source, in_quotes(format));
  const SafetensorsFile tensors(directory / (format == "authors" ? kModelFile : kAdaptersFile));
  const std::string file = tensors.path().string();
  const SafetensorsRecord record =
      record_of(checksums_of(files, directory), directory, tensors.path().filename().string());
  const ReadTensor read = [&](const std::string& name) {
    const Tensor tensor = tensors.tensor(name);
    const auto expected = record.tensors.find(name);
    const std::span bytes(static_cast<const std::byte*>(tensor.data()), tensor.bytes());
    if (expected == record.tensors.end() || crc32c(bytes) != expected->second.crc32c)
      throw DataError("{}: tensor {} is damaged: it is not the one of {}", file, in_quotes(name), kExportChecksums);
    return tensor;
  };
  AdapterBundle bundle{.type = text_of(description, "type", source),
                       .layers = {},
                       .source = "export " + directory.string(),
                       .step = integer_of(description, "step", 0, source),
                       .base_fingerprint = text_of(description, "base", source),
                       .target_fingerprint = text_of(description, "target", source)};
  if (description.contains("edits")) bundle.edits = text_of(description, "edits", source);
  if (description.contains("beside")) bundle.beside = mlp_source(text_of(description, "beside", source), source);
  for (const nlohmann::json& entry : description.value("layers", nlohmann::json::array())) {
    const auto number = static_cast<int>(integer_of(entry, "layer", 0, source));
    const AdapterShape shape{.model_width = integer_of(entry, "width", 1, source),
                             .features = integer_of(entry, "features", 1, source)};
    bundle.layers.push_back(format == "authors" ? read_authors_layer(number, shape, read, file)
                                                : read_adapters_layer(bundle.type, number, shape, read, file));
  }
  return bundle;
}

bool is_authors_directory(FileSystem& files, const fs::path& directory) {
  const fs::path path = directory / "config.json";
  if (!files.exists(path)) return false;
  const nlohmann::json config = parse_json(read_text(files, path), path);
  return config.is_object() && config.contains("transcoder_n_features");
}

AdapterBundle load_authors_directory(FileSystem& files, const fs::path& directory) {
  const fs::path config = directory / "config.json";
  const std::int64_t features =
      integer_of(parse_json(read_text(files, config), config), "transcoder_n_features", 1, config.string());
  const ModelFiles model(directory);
  const ReadTensor read = [&](const std::string& name) { return model.tensor(name); };
  AdapterBundle bundle;
  bundle.type = "transcoder";
  bundle.source = "authors' checkpoint " + directory.string();
  int number = 0;
  for (; model.contains(authors_prefix(number) + "enc.weight"); ++number) {
    const std::string encoder = authors_prefix(number) + "enc.weight";
    const AdapterShape shape = shape_of_encoder(model.tensor(encoder), encoder);
    if (shape.features != features)
      throw DataError("{}: {}: expected {} features as config.json says, found {}", directory.string(), encoder,
                      features, shape.features);
    AdapterBundle::Layer layer = read_authors_layer(number, shape, read, directory.string());
    if (!is_zero(layer)) bundle.layers.push_back(std::move(layer));
  }
  if (bundle.layers.empty())
    throw DataError("{}: {}", directory.string(),
                    number == 0 ? "no transcoder tensors" : "all transcoders are zero: nothing was trained");
  return bundle;
}

std::vector<std::string> verify_export(FileSystem& files, const fs::path& directory) {
  read_description(files, directory);
  std::vector<std::string> problems;
  for (const auto& [name, record] : checksums_of(files, directory).files) try {
      verify_file(files, directory / name, record);
    } catch (const Error& error) {
      problems.emplace_back(error.what());
    }
  return problems;
}

}  // namespace tadapt

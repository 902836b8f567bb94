// load_adapters: the adapters of a run, a checkpoint, an export or a foreign checkpoint, as one bundle.
#include <algorithm>

#include "data/checkpoint.h"
#include "runtime/bundle/adapter_bundle.h"
#include "runtime/bundle/load_export.h"
#include "runtime/bundle/non_finite.h"

namespace tadapt {
namespace {

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
        zero_layer(bundle.type, std::stoi(layer_number->second), shape_of_encoder(encoder->second.tensor(), path));
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
  if (!newest) throw MissingInputError("{}: the run has no checkpoint yet", run_dir.string());
  return from_checkpoint(files, *newest);
}

void require_finite(const AdapterBundle& bundle) {
  for (const AdapterBundle::Layer& layer : bundle.layers) {
    const ParameterTensors masters = layer.store->master_views(0);
    for (const auto& [name, tensor] : masters.entries()) {
      const std::string problem = non_finite_numbers(tensor);
      if (!problem.empty()) throw NonFiniteError("{}: layer {}: {}: {}", bundle.source, layer.layer, name, problem);
    }
  }
}

}  // namespace

AdapterBundle load_adapters(FileSystem& files, const std::filesystem::path& path,
                            const std::function<void(const std::string&)>& warn) {
  AdapterBundle bundle = [&] {
    if (files.exists(path / kRunFile)) return from_run(files, path, warn);
    if (files.exists(path / kManifestName)) return from_checkpoint(files, verify_checkpoint(files, path));
    if (files.exists(path / kExportDescription)) return load_export(files, path);
    if (is_authors_directory(files, path)) return load_authors_directory(files, path);
    throw MissingInputError("{}: holds no adapters: neither a run, a checkpoint, an export nor an authors' checkpoint",
                            path.string());
  }();
  require_finite(bundle);
  return bundle;
}

}  // namespace tadapt

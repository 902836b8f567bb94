// `tadapt-dist inspect`: what a cache, checkpoint, run, export or model holds, without reading all of it.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "data/activation_cache_reader.h"
#include "data/checkpoint.h"
#include "data/model_files.h"
#include "launcher/arguments.h"
#include "launcher/artifact.h"
#include "launcher/commands.h"
#include "runtime/bundle/adapter_bundle.h"
#include "runtime/model/decoder_config.h"
#include "runtime/plan/estimate.h"
#include "runtime/train/option_table.h"
#include "runtime/train/run_directory.h"

namespace tadapt {
namespace {

namespace fs = std::filesystem;
using Print = std::function<void(const std::string&)>;

void inspect_cache(FileSystem& files, const fs::path& path, const Print& print) {
  const ActivationCacheReader cache(files, path, CacheOpen::kDamaged);
  const CacheManifest& manifest = cache.manifest();
  std::uint64_t bytes = 0;
  for (const CacheShard& shard : manifest.shards) bytes += shard.bytes;
  print(fmt::format("{}: an activation cache", path.string()));
  print(fmt::format("  {} rows in {} shards, {}", manifest.rows, manifest.shards.size(),
                    readable_bytes(static_cast<std::int64_t>(bytes))));
  print(fmt::format("  x and Δ of width {} as {}, {} layers", manifest.format.width, name(manifest.format.row_dtype),
                    manifest.format.layers.size()));
  for (const auto& [key, value] : manifest.provenance) print(fmt::format("  {}: {}", key, value));
  print("  layer     s² = mean ‖Δ‖²   in largest 0.1 %   at position 0   rounding of x      of Δ");
  for (std::size_t i = 0; i < manifest.layers.size(); ++i) {
    const CacheLayerStatistics& layer = manifest.layers[i];
    print(fmt::format("  {:5} {:18.6g} {:16.1f} % {:13.1f} % {:15.2e} {:9.2e}", manifest.format.layers[i],
                      layer.scale_square, 100 * layer.largest_rows_share, 100 * layer.first_position_share,
                      layer.input_rounding_error, layer.delta_rounding_error));
  }
}

void inspect_checkpoint(FileSystem& files, const fs::path& path, const Print& print) {
  const CheckpointInfo checkpoint = open_checkpoint(files, path);
  print(fmt::format("{}: a checkpoint of step {}", path.string(), checkpoint.step));
  for (const auto& [key, value] : checkpoint.state.items()) print(fmt::format("  {}: {}", key, value.dump()));
  for (const auto& [name, part] : checkpoint.parts)
    print(fmt::format("  {}: {} tensors, {}", name, part.tensors.size(),
                      readable_bytes(static_cast<std::int64_t>(part.bytes))));
}

void inspect_run(FileSystem& files, const fs::path& path, const Print& print) {
  const RunOptions options = options_of_run(files, path);
  const RunOptions defaults;
  print(fmt::format("{}: a run directory; options that are not the defaults:", path.string()));
  for (const Option& option : option_table()) {
    if (option.key != "run.dir" && option.key != "cache.dir" && option.value(options) != option.value(defaults))
      print(fmt::format("  {}: {}", option.key, option.value(options).dump()));
  }
  const fs::path cache = cache_directory(options);
  print(options.cache.source == RowSource::kStream
            ? "  its rows are streamed: there is no cache"
            : fmt::format("  its cache: {}{}", cache.string(), files.exists(cache) ? "" : " (not there)"));
  const auto checkpoints = list_checkpoints(files, path / "checkpoints");
  print(fmt::format("  {} checkpoints{}", checkpoints.size(), checkpoints.empty() ? "" : ", newest first:"));
  for (const fs::path& checkpoint : checkpoints) print(fmt::format("  {}", checkpoint.string()));
}

void inspect_adapters(FileSystem& files, const fs::path& path, const Print& print) {
  const AdapterBundle bundle = load_adapters(files, path, print);
  print(fmt::format("{}: {} adapters of step {}", path.string(), bundle.type, bundle.step));
  for (const AdapterBundle::Layer& layer : bundle.layers)
    print(fmt::format("  layer {}: D {}, F {}", layer.layer, layer.shape.model_width, layer.shape.features));
  print(fmt::format("  base {}, target {}", bundle.base_fingerprint, bundle.target_fingerprint));
}

void inspect_model(FileSystem& files, const fs::path& path, const Print& print) {
  const DecoderConfig config = load_decoder_config(files, path);
  const ModelFiles model(path);
  std::int64_t parameters = 0;
  for (const std::string& tensor : model.names()) parameters += model.tensor(tensor).elements();
  print(fmt::format("{}: a {} model", path.string(), config.architecture->model_type));
  print(fmt::format("  layers {}, D {}, d_ff {}, heads {}, kv heads {} of width {}, vocabulary {}", config.layers,
                    config.width, config.mlp_width, config.heads, config.kv_heads, config.head_width,
                    config.vocabulary));
  print(fmt::format("  positions {}, rope theta {:g}, norm epsilon {:g}, {} head", config.max_positions,
                    config.rope_theta, config.norm_epsilon, config.tied_head ? "tied" : "untied"));
  print(fmt::format("  {} tensors, {} parameters, fingerprint {}", model.names().size(), parameters,
                    model_fingerprint(path)));
}

void inspect(FileSystem& files, const fs::path& path, const Print& print) {
  switch (kind_of(files, path)) {
    case ArtifactKind::kCache:
      return inspect_cache(files, path, print);
    case ArtifactKind::kCheckpoint:
      return inspect_checkpoint(files, path, print);
    case ArtifactKind::kRun:
      return inspect_run(files, path, print);
    case ArtifactKind::kAdapters:
      return inspect_adapters(files, path, print);
    case ArtifactKind::kModel:
      return inspect_model(files, path, print);
  }
}

}  // namespace

int inspect_command(const Words& words, const Process& process) {
  const CommandSyntax syntax{.usage = "inspect PATH",
                             .about = "Says what a cache, checkpoint, run directory, export or model holds.",
                             .operands = {"PATH"}};
  const auto arguments = parse_arguments(syntax, words, process);
  if (arguments && process.session.rank() == 0)
    inspect(process.files, process.current_directory / text_of(*arguments, "PATH"), process.print);
  return static_cast<int>(ExitCode::kDone);
}

}  // namespace tadapt

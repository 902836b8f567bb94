#include "launcher/artifact.h"

#include "data/activation_cache.h"
#include "data/checkpoint_manifest.h"
#include "data/json.h"
#include "runtime/capture/capture.h"
#include "runtime/train/run_directory.h"

namespace tadapt {
namespace {

/// Whether a model directory is in the authors' layout, which holds adapters too.
bool has_adapters(FileSystem& files, const std::filesystem::path& path) {
  const std::filesystem::path config = path / "config.json";
  const nlohmann::json keys = parse_json(read_text(files, config), config);
  return keys.is_object() && keys.contains("transcoder_n_features");
}

}  // namespace

ArtifactKind kind_of(FileSystem& files, const std::filesystem::path& path) {
  if (!files.exists(path)) throw MissingInputError("{}: there is no such path", path.string());
  const std::pair<const char*, ArtifactKind> marks[] = {{kManifestName, ArtifactKind::kCheckpoint},
                                                        {kManifestFile, ArtifactKind::kCache},
                                                        {kRunFile, ArtifactKind::kRun},
                                                        {"adapters.json", ArtifactKind::kAdapters},
                                                        {"config.json", ArtifactKind::kModel}};
  std::string looked_for;
  for (const auto& [file, kind] : marks) {
    if (files.exists(path / file))
      return kind == ArtifactKind::kModel && has_adapters(files, path) ? ArtifactKind::kAdapters : kind;
    looked_for += (looked_for.empty() ? "" : ", ") + std::string(file);
  }
  if (files.exists(path / kCapturePlanFile))
    throw MissingInputError("{}: an unfinished capture: start the same capture again to finish it", path.string());
  throw DataError("{}: no cache, checkpoint, run, export or model: it holds none of {}", path.string(), looked_for);
}

}  // namespace tadapt

#include "launcher/artifact.h"

#include "data/activation_cache.h"
#include "data/checkpoint_manifest.h"
#include "runtime/bundle/load_export.h"
#include "runtime/capture/capture.h"
#include "runtime/train/run_directory.h"

namespace tadapt {

ArtifactKind kind_of(FileSystem& files, const std::filesystem::path& path) {
  if (!files.exists(path)) throw MissingInputError("{}: there is no such path", path.string());
  const std::pair<const char*, ArtifactKind> marks[] = {{kManifestName, ArtifactKind::kCheckpoint},
                                                        {kManifestFile, ArtifactKind::kCache},
                                                        {kRunFile, ArtifactKind::kRun},
                                                        {kExportDescription, ArtifactKind::kAdapters},
                                                        {"config.json", ArtifactKind::kModel}};
  std::string looked_for;
  for (const auto& [file, kind] : marks) {
    if (files.exists(path / file))
      return kind == ArtifactKind::kModel && is_authors_directory(files, path) ? ArtifactKind::kAdapters : kind;
    looked_for += (looked_for.empty() ? "" : ", ") + std::string(file);
  }
  if (files.exists(path / kCapturePlanFile))
    throw MissingInputError("{}: an unfinished capture: start the same capture again to finish it", path.string());
  throw DataError("{}: no cache, checkpoint, run, export or model: it holds none of {}", path.string(), looked_for);
}

ArtifactKind kind_with_adapters(FileSystem& files, const std::filesystem::path& path) {
  const ArtifactKind kind = kind_of(files, path);
  if (kind == ArtifactKind::kCache || kind == ArtifactKind::kModel)
    throw MissingInputError("{}: holds no adapters: it is {}", path.string(),
                            kind == ArtifactKind::kCache ? "an activation cache" : "a model");
  return kind;
}

}  // namespace tadapt

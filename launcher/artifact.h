// What kind of thing a path holds: the commands that take any path ask here.
#pragma once

#include <filesystem>

#include "data/file.h"

namespace tadapt {

enum class ArtifactKind {
  kCache,       ///< an activation cache
  kCheckpoint,  ///< one checkpoint
  kRun,         ///< a run directory
  kAdapters,    ///< an export: adapters alone, or a directory in the authors' layout
  kModel,       ///< a model directory in Hugging Face layout
};

/// Told by the file that each kind always has. MissingInputError when the path is not there, DataError naming what was
/// looked for when it holds none of these.
ArtifactKind kind_of(FileSystem& files, const std::filesystem::path& path);

/// As kind_of, for commands that need adapters: MissingInputError when it is a cache or a model without any.
ArtifactKind kind_with_adapters(FileSystem& files, const std::filesystem::path& path);

}  // namespace tadapt

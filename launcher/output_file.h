// Whether an output can be written: asked before the work, not after it.
#pragma once

#include <filesystem>

#include "data/file.h"

namespace tadapt {

/// WriteError unless `file` can be written, by write_atomically for example.
void require_writable(FileSystem& files, const std::filesystem::path& file);

}  // namespace tadapt

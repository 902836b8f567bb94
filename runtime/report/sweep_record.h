// A sweep's sweep.json, checked so that a page can draw it.
#pragma once

#include <filesystem>
#include <nlohmann/json_fwd.hpp>

#include "data/file.h"

namespace tadapt {

inline constexpr char kSweepFile[] = "sweep.json";

/// FOLDER/sweep.json as it stands there (docs/formats.md). DataError naming file and key for what is missing or of
/// another type, and for an index beyond the points.
nlohmann::json read_sweep(FileSystem& files, const std::filesystem::path& folder);

}  // namespace tadapt

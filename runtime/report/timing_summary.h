// Where the time of a run went, from its timing.jsonl.
#pragma once

#include <filesystem>
#include <nlohmann/json_fwd.hpp>

#include "data/file.h"

namespace tadapt {

/// {"jobs": […], "speed": […]}; both empty when the file is not there. A line's seconds count from the start of its
/// job, so a job ends where the next line has fewer.
///
/// A job is {"first_step", "step", "seconds", "parts": {"data_stall": s, …}} as of its last line; every number
/// "NAME_seconds" is a part, and what no part claims is "compute". Its other numbers stand beside. `speed` is
/// [{"step", "tokens_per_second"}], each since the line before. DataError "file:line: …" for a line that is not of this
/// kind; a torn last one is left out.
nlohmann::json timing_summary(FileSystem& files, const std::filesystem::path& path);

}  // namespace tadapt

// Dry runs: what a training, a capture or a sweep would be, whether it fits and how long it takes, before anything is
// written.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <vector>

#include "runtime/train/run_environment.h"
#include "runtime/train/run_options.h"

namespace tadapt {

/// Collects what dry runs say, as JSON for other programs.
struct DryRunRecord {
  nlohmann::json figures = nlohmann::json::array();
  /// Writes them, a list of one object a run, on rank 0; nothing when no path is named. Collective.
  void write(const std::filesystem::path& path, const RunEnvironment& environment) const;
};

/// Prints grid, steps, memory, disk, what ranks send, and time of a run. The errors of training that show so early.
/// Collective.
void dry_run(const RunOptions& options, const RunEnvironment& environment, DryRunRecord& record);
/// The same of runs of the local objective that are trained side by side.
void dry_run_side_by_side(const std::vector<const RunOptions*>& runs, const RunEnvironment& environment,
                          DryRunRecord& record);
/// Prints rows, disk, memory and time of a capture.
void dry_run_capture(const RunOptions& options, const RunEnvironment& environment, DryRunRecord& record);

}  // namespace tadapt

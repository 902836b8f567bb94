// The run directory: who may use it, and with which options it was made.
#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "data/file.h"
#include "runtime/bundle/adapter_bundle.h"
#include "runtime/train/run_options.h"

namespace tadapt {

/// Takes the directory for this job: makes it, locks it (WriteError naming the holder when another job has it), and
/// compares its options: ConfigError naming every key that differs and may not. Writes run.json when it is new, or when
/// nothing was trained in it yet: neither checkpoints nor metrics of a step hold it to its options.
/// One rank calls this; the lock lasts as long as the result.
std::unique_ptr<FileLock> open_run_directory(FileSystem& files, const RunOptions& options, const std::string& holder);

/// The options a run directory was made with; run.dir, and a cache inside it, are where they are now. MissingInputError
/// when it is no run directory.
RunOptions options_of_run(FileSystem& files, const std::filesystem::path& run_dir);

/// Where the run's activation cache lies.
std::filesystem::path cache_directory(const RunOptions& options);

/// 16 hexadecimal digits of what a run's results depend on (config_json).
std::string config_hash(const RunOptions& options);

}  // namespace tadapt

#include "runtime/train/run_directory.h"

#include <fmt/ranges.h>
#include <xxhash.h>

#include "data/checkpoint.h"
#include "data/json.h"
#include "data/line_reader.h"
#include "runtime/train/metrics.h"
#include "runtime/train/option_table.h"

namespace tadapt {
namespace {

nlohmann::json all_options(const RunOptions& options) {
  nlohmann::json values = nlohmann::json::object();
  for (const Option& option : option_table()) values[option.key] = option.value(options);
  return values;
}

bool was_trained_in(FileSystem& files, const std::filesystem::path& run_dir) {
  if (!list_checkpoints(files, run_dir / "checkpoints").empty()) return true;
  const auto metrics = run_dir / kMetricsFile;
  if (!files.exists(metrics)) return false;
  // A run that ended at a number that is not finite before its first step was done has learnt nothing.
  std::string first;
  return LineReader(files, metrics).next(first) && first.find("\"not_finite\"") == first.npos;
}

}  // namespace

std::unique_ptr<FileLock> open_run_directory(FileSystem& files, const RunOptions& options, const std::string& holder) {
  files.make_directories(options.dir);
  auto lock = files.lock(options.dir / "run.lock", holder);
  const auto run_file = options.dir / kRunFile;
  if (!files.exists(run_file) || !was_trained_in(files, options.dir)) {
    write_atomically(files, run_file, all_options(options).dump(2) + "\n");
    return lock;
  }
  const std::vector<std::string> keys =
      differing_keys(config_json(options_of_run(files, options.dir)), config_json(options));
  if (!keys.empty())
    throw ConfigError("{}: was made with another configuration: {}; continue with the same, or choose another run.dir",
                      options.dir.string(), fmt::join(keys, ", "));
  return lock;
}

RunOptions options_of_run(FileSystem& files, const std::filesystem::path& run_dir) {
  const auto run_file = run_dir / kRunFile;
  if (!files.exists(run_file)) throw MissingInputError("{}: not a run directory: no {}", run_dir.string(), kRunFile);
  const nlohmann::json values = parse_json(read_text(files, run_file), run_file);
  RunOptions options;
  for (const Option& option : option_table()) {
    if (!values.is_object() || !values.contains(option.key))
      continue;  // an option newer than the run keeps its default
    const nlohmann::json& value = values.at(option.key);
    if (!option.parse(options, value.is_string() ? value.get<std::string>() : value.dump(), {}))
      throw DataError("{}: {}: expected {}, found {}", run_file.string(), option.key, option.expected, value.dump());
  }
  // A run may have been moved or copied since: what lay inside it still does.
  const std::filesystem::path inside = options.cache.dir.lexically_relative(options.dir);
  if (!inside.empty() && *inside.begin() != "..") options.cache.dir = (run_dir / inside).lexically_normal();
  options.dir = run_dir;
  return options;
}

std::filesystem::path cache_directory(const RunOptions& options) {
  return options.cache.dir.empty() ? options.dir / "cache" : options.cache.dir;
}

std::string config_hash(const RunOptions& options) {
  const std::string text = config_json(options).dump();
  return fmt::format("{:016x}", XXH3_64bits(text.data(), text.size()));
}

}  // namespace tadapt

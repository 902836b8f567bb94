// RunRecord: what a run directory holds, as a report shows it.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "data/file.h"
#include "runtime/report/curves.h"
#include "runtime/train/run_options.h"

namespace tadapt {

/// Something a reader should know before looking at curves.
struct Finding {
  enum class Level { kWarning, kProblem };
  Level level = Level::kWarning;
  std::string text;
};

/// JSON as a file under this name in the run's folder.
struct NamedJson {
  std::string name;
  nlohmann::ordered_json json;
};

struct RunRecord {
  std::filesystem::path path;
  RunOptions options;
  Curves training, held_out;
  std::int64_t step = 0;                    ///< of the last line of metrics
  std::int64_t total_steps = 0;             ///< 0: not known
  nlohmann::json state = {};                ///< of the newest checkpoint; null without one
  nlohmann::json timing = {};               ///< timing_summary()
  std::vector<NamedJson> evaluations = {};  ///< evaluation*.json
  std::vector<NamedJson> benchmarks = {};   ///< */benchmark.json
  std::vector<Finding> findings = {};

  std::size_t series_count() const { return training.series_count() + held_out.series_count(); }
};

/// Reads a run directory, changing nothing in it; a job may be at work there. MissingInputError when it is none or
/// nothing was trained in it yet, DataError naming file and place for what cannot be understood. A damaged checkpoint
/// is a finding, no error.
RunRecord read_run(FileSystem& files, const std::filesystem::path& path);

/// The run for the page, its curves with at most `points` points; `name` is how the page calls it.
nlohmann::ordered_json to_json(const RunRecord& run, const std::string& name, std::size_t points);

}  // namespace tadapt

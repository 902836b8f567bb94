// What a run's metrics.jsonl says, line by line, whatever figures its objective has.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "data/file.h"

namespace tadapt {

/// One number of a line. NaN where the line has null.
struct MetricsFigure {
  std::string metric;   ///< "nmse"
  std::string trainee;  ///< "layer-003"; kWhole or kMean
  double value = 0.0;
};
inline constexpr char kWhole[] = "";  ///< in the trainee's place: a figure of the run as a whole
inline constexpr char kMean[] = "*";  ///< the mean over the trainees, of a metric that the whole does not have

struct MetricsLine {
  enum class Kind { kStep, kHeldOut, kNotFinite };
  Kind kind = Kind::kStep;
  std::int64_t step = 0;
  std::int64_t tokens = 0;  ///< of this step
  std::vector<MetricsFigure> figures = {};
  std::string message = {};  ///< of kNotFinite
};

/// Hands every line to `take`, in order. Every number of a line is a figure, and so is every mean over trainees. A torn
/// last line (the run goes on, or was killed) is left out. DataError "file:line: …" for a line that is no JSON object
/// with a step, or whose step is below that of the line before.
void read_metrics(FileSystem& files, const std::filesystem::path& path,
                  const std::function<void(const MetricsLine&)>& take);

}  // namespace tadapt

// What a step reports, and the two JSONL files it goes to: metrics.jsonl (reproducible), timing.jsonl (not).
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "data/file.h"

namespace tadapt {

/// One trainee at one step.
struct TraineeMetrics {
  double loss = 0.0;  ///< nmse + sparsity term
  double nmse = 0.0;  ///< mean ‖Δ−T(x)‖² / s²
  double l0 = 0.0;    ///< active features per token
  double dead_share = 0.0;
  double gradient_norm = 0.0;  ///< before clipping
};

/// Held-out figures of one trainee.
struct HeldOutMetrics {
  double nmse = 0.0;  ///< Σ‖Δ−T(x)‖² / Σ‖Δ‖²
  double l0 = 0.0;
};

struct StepMetrics {
  std::int64_t step = 0;  ///< steps done
  double learning_rate = 0.0;
  std::vector<std::string> names;
  std::vector<TraineeMetrics> trainees;

  TraineeMetrics mean() const;
};

inline constexpr char kMetricsFile[] = "metrics.jsonl";

/// Appends lines to RUN/metrics.jsonl and RUN/timing.jsonl. Rank 0 only.
class MetricsLog {
 public:
  /// Opens both, after cutting metrics.jsonl to lines with "step" <= `resume_step` (0: starts it anew). Lines that are
  /// no JSON objects, such as a torn last one, are dropped. The files may be of any size.
  MetricsLog(FileSystem& files, const std::filesystem::path& run_dir, std::int64_t resume_step,
             std::int64_t every_steps = 1);
  ~MetricsLog();

  /// Of the steps up to `resume_step` that `every_steps` divides: those without a line.
  std::int64_t missing_steps() const { return missing_steps_; }

  void step(const StepMetrics& metrics);
  void held_out(std::int64_t step, const std::vector<std::string>& names, const std::vector<HeldOutMetrics>& metrics);
  struct Timing {
    std::int64_t step = 0;
    double seconds = 0.0;
    double tokens_per_second = 0.0;
    double data_stall_seconds = 0.0;
    double checkpoint_seconds = 0.0;
    int ranks = 0;
  };
  void timing(const Timing& timing);

 private:
  class Appender;
  std::unique_ptr<Appender> metrics_, timing_;
  std::int64_t missing_steps_ = 0;
};

}  // namespace tadapt

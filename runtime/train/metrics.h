// What a step reports, and the two JSONL files it goes to: metrics.jsonl (reproducible), timing.jsonl (not).
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "data/file.h"

namespace tadapt {

/// Named numbers in the order in which they are shown. One that is not finite is written as null.
using Figures = std::vector<std::pair<std::string, double>>;

/// One trainee at one step.
struct TraineeMetrics {
  Figures own;                 ///< of the objective: "loss", "nmse", …
  double l0 = 0.0;             ///< active features per token
  double dead_share = 0.0;     ///< features not active in the last train.dead_after_tokens tokens
  double gradient_norm = 0.0;  ///< before clipping
};

struct StepMetrics {
  std::int64_t step = 0;    ///< steps done
  std::int64_t tokens = 0;  ///< of this step, over all ranks
  double learning_rate = 0.0;
  Figures whole = {};             ///< of the objective over all trainees
  std::vector<int> cutoffs = {};  ///< drawn for this step; bridging only
  std::vector<std::string> names = {};
  std::vector<TraineeMetrics> trainees = {};
};

/// For a line of progress: means over the runs of the first few of the whole's figures, else over all trainees of their
/// own; then mean L0 and dead share.
std::string summary(const std::vector<StepMetrics>& runs);

/// Held-out figures of the whole, and of the trainees; either may be empty.
struct HeldOutFigures {
  Figures whole = {};
  std::vector<std::string> names = {};
  std::vector<Figures> trainees = {};

  bool empty() const { return whole.empty() && trainees.empty(); }
};

/// "NMSE 0.1234, L0 12.00": means over the runs of the whole's figures, else over all trainees of theirs.
std::string summary(const std::vector<HeldOutFigures>& runs);

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
  /// Whether there was a held-out line of this step when the log was opened.
  bool has_held_out(std::int64_t step) const { return last_held_out_ == step; }

  void step(const StepMetrics& metrics);
  void held_out(std::int64_t step, const HeldOutFigures& figures);
  /// The run ends because something of this step is not finite.
  void not_finite(std::int64_t step, const std::string& message);
  struct Timing {
    std::int64_t step = 0;
    double seconds = 0.0;
    double tokens_per_second = 0.0;
    double data_stall_seconds = 0.0;
    double exchange_stall_seconds = 0.0;
    double checkpoint_seconds = 0.0;
    int ranks = 0;
    double share = 1.0;  ///< of the features of all runs that are trained side by side
  };
  void timing(const Timing& timing);
  /// What was written so far is on disk: before a checkpoint that counts on it is.
  void sync();

 private:
  class Appender;
  std::unique_ptr<Appender> metrics_, timing_;
  std::int64_t missing_steps_ = 0;
  std::int64_t last_held_out_ = -1;
};

}  // namespace tadapt

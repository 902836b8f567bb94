// Study: a scaling study's folder as it is: which runs it has, and where each stands.
#pragma once

#include <filesystem>
#include <set>
#include <string>
#include <vector>

#include "runtime/sweep/sweep_plan.h"
#include "runtime/sweep/sweep_results.h"
#include "runtime/train/run_environment.h"

namespace tadapt {

/// Reads only; what is finished stays so and is looked at once. All of it is collective.
class Study {
 public:
  /// `points` and those that the folder has from earlier calls; it need not exist. Everything outlives it. DataError
  /// when its sweep.json is none.
  Study(const RunOptions& common, std::filesystem::path directory, std::vector<SweepPoint> points,
        const RunEnvironment& environment);

  const std::filesystem::path& directory() const { return directory_; }
  const std::vector<SweepPoint>& points() const { return points_; }
  RunOptions options(const SweepPoint& point) const { return options_of(point, common_, directory_); }

  /// Why a run cannot go on; empty where it can.
  std::string divergence(const SweepPoint& point) const;
  bool is_finished(const SweepPoint& point);
  bool is_evaluated(const SweepPoint& point) const;
  /// Of runs that are neither finished nor diverged.
  std::vector<Standing> standings();
  /// The checkpoint of a step; empty for step 0.
  std::string checkpoint_at(const RunOptions& options, std::int64_t step) const;

 private:
  bool exists(const std::filesystem::path& path) const;
  std::int64_t step_of(const std::filesystem::path& checkpoint) const;

  const RunOptions& common_;
  std::filesystem::path directory_;
  std::vector<SweepPoint> points_;
  std::set<SweepPoint> finished_;  // those found to be: telling that reads their whole checkpoints
  const RunEnvironment& environment_;
};

inline constexpr char kStudyFile[] = "sweep.json", kDivergedFile[] = "diverged.json",
                      kEvaluationFile[] = "evaluation.json";

}  // namespace tadapt

// SweepPlan: which runs a scaling study is made of, and which of them can be trained side by side next.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "runtime/train/run_options.h"
#include "runtime/train/run_state.h"

namespace tadapt {

/// One run of a study: what it has of its own.
struct SweepPoint {
  std::int64_t dictionary = 0;  ///< adapter.features
  double sparsity = 0.0;        ///< loss.sparsity
  std::uint64_t seed = 0;       ///< train.seed
  std::string name() const;     ///< "d512-l0.001-s0", its folder
  friend auto operator<=>(const SweepPoint&, const SweepPoint&) = default;
};

/// What was asked for: all combinations.
struct SweepAxes {
  std::vector<std::int64_t> dictionaries;
  std::vector<double> sparsities;
  std::vector<std::uint64_t> seeds;
};

/// Ascending. ConfigError naming the flag when an axis is empty, has a value twice or one that no run can have.
std::vector<SweepPoint> points_of(const SweepAxes& axes);

/// The options of one point's run, which lies in `directory`/runs: those of `common` but for what the point has of its
/// own. Runs share `directory`/cache unless `common` names a cache; where the seed draws the rows, each seed has its
/// own.
RunOptions options_of(const SweepPoint& point, const RunOptions& common, const std::filesystem::path& directory);

/// Runs that stand at the same step and differ in dictionary size and λ only.
using Cohort = std::vector<PlannedRun>;

/// A run that is not finished, and the steps from which it can go on, newest first: of its checkpoints that verify, and
/// 0.
struct Standing {
  RunOptions options;
  std::vector<std::int64_t> steps;
};

/// Which runs go on together, and from where: runs of one seed, with as many as `most` at a time (0: all). A run goes
/// back to an older checkpoint where others have only that one and it lies no further back than `step_back`; so an
/// interruption between two runs' checkpoints costs a checkpoint's distance, and points that were added later start by
/// themselves. `before` of the result has steps only.
std::vector<Cohort> cohorts_of(std::vector<Standing> runs, std::int64_t step_back, std::size_t most);

}  // namespace tadapt

// A scaling study: runs over dictionary sizes, λ and seeds, trained side by side, evaluated, and made sense of.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "runtime/sweep/study.h"

namespace tadapt {

struct SweepRequest {
  const RunOptions& options;  ///< what the runs have in common
  std::filesystem::path directory;
  std::vector<SweepPoint> points;
  std::size_t together = 0;  ///< runs at a time at most; 0: all of a seed
  bool evaluates = true;     ///< compare each finished run's models on corpus.validation
};

struct SweepOutcome {
  bool finished = false;  ///< false: a stop was asked for; what is done is saved
  std::size_t done = 0, failed = 0, all = 0;
  std::string table;
};

/// Trains what is not finished, evaluates, and writes `directory`/sweep.json and sweep.csv over these points and those
/// of earlier calls. Each run lies in `directory`/runs as `train` would have made it, bit for bit. One that is not
/// finite somewhere ends and says so in its diverged.json; the others go on from their last checkpoints. The study is
/// locked: WriteError naming the holder. Collective.
SweepOutcome run_sweep(const SweepRequest& request, const RunEnvironment& environment);

/// What run_sweep() would train, one group after the other.
std::vector<Cohort> next_cohorts(const SweepRequest& request, Study& study);

}  // namespace tadapt

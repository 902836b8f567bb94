// SweepResults: what the runs of a study came to, and what follows from it.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "data/file.h"
#include "runtime/sweep/pareto.h"
#include "runtime/sweep/power_law.h"
#include "runtime/sweep/sweep_plan.h"

namespace tadapt {

/// Figures of one run, or of one of its layers.
struct SweepFigures {
  double l0 = 0.0;           ///< active features per token
  double nmse = 0.0;         ///< Σ‖Δ − T(x)‖² / Σ‖Δ‖²; of a run the mean over its layers
  std::optional<double> kl;  ///< token KL of the adapter model on responses, nats; of whole runs
  double dead_share = 0.0;
};

/// One finished run. L0, NMSE, KL and dead share are those of its evaluation; without one, of its held-out rows (of
/// training's last step where there are none), and then without KL.
struct SweepResult {
  SweepPoint point;
  std::string run;  ///< its folder, from the study's
  SweepFigures whole;
  std::vector<int> layers;
  std::vector<SweepFigures> by_layer;
  double seconds = 0.0;            ///< of training, over all its interruptions
  double tokens_per_second = 0.0;  ///< of the last of them
  double rank_seconds = 0.0;       ///< seconds · ranks · its share of the features trained side by side
};

/// NMSE or KL at one λ over dictionary sizes, all seeds.
struct SweepFit {
  double sparsity = 0.0;
  std::string figure;  ///< "nmse" or "kl"
  PowerLaw law;
};

struct SweepAnalysis {
  std::vector<std::size_t> nmse_front, kl_front;  ///< indices of results
  std::vector<SweepFit> fits;
  std::optional<std::size_t> recommended;  ///< knee of the KL front, of the NMSE front where there is no KL
};

/// DataError naming file and what is wrong.
SweepResult load_result(FileSystem& files, const std::filesystem::path& directory, const SweepPoint& point);
SweepAnalysis analyse(const std::vector<SweepResult>& results);

/// A run that cannot go on, and why.
struct SweepFailure {
  SweepPoint point;
  std::string reason;
};

/// {"points": […], "pareto": {"nmse": […], "kl": […]}, "fits": […], "recommended": i, "unfinished": […], "failed": […]}
std::string to_json(const std::vector<SweepResult>& results, const SweepAnalysis& analysis,
                    const std::vector<SweepPoint>& unfinished, const std::vector<SweepFailure>& failed);
/// One line a run ("all") and one each of its layers.
std::string to_csv(const std::vector<SweepResult>& results);
/// For people; `*` marks what no other run beats, `<` the recommended one.
std::string to_table(const std::vector<SweepResult>& results, const SweepAnalysis& analysis);

}  // namespace tadapt

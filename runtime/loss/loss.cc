#include "runtime/loss/loss.h"

#include <algorithm>

#include "kernels/core/error.h"

namespace tadapt {

const std::vector<Objective>& objectives() {
  static const std::vector<Objective> kObjectives = {
      {kLocalObjective, {{"local_nmse", LossSource::kCachedRows}, {"sparsity", LossSource::kCachedRows}}},
      {kBridgingObjective,
       {{"kl_adapter", LossSource::kModel},
        {"kl_bridge", LossSource::kModel},
        {"residual_nmse", LossSource::kModel},
        {"label", LossSource::kModel},
        {"sparsity", LossSource::kModel}}},
  };
  return kObjectives;
}

const Objective& find_objective(const std::string& name) {
  std::string known;
  for (const Objective& objective : objectives()) {
    if (name == objective.name) return objective;
    known += (known.empty() ? "" : ", ") + std::string(objective.name);
  }
  throw ConfigError("train.objective: '{}' is not one of: {}", name, known);
}

bool needs_cached_rows_only(const Objective& objective) {
  return std::ranges::all_of(objective.terms,
                             [](const LossTerm& term) { return term.source == LossSource::kCachedRows; });
}

}  // namespace tadapt

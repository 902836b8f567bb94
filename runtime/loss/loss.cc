#include "runtime/loss/loss.h"

#include "kernels/core/error.h"

namespace tadapt {

const std::vector<Objective>& objectives() {
  static const std::vector<Objective> kObjectives = {
      {"local", {{"local_nmse", LossSource::kCachedRows}, {"sparsity", LossSource::kCachedRows}}},
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

void require_cached_source(const Objective& objective) {
  for (const LossTerm& term : objective.terms)
    if (term.source != LossSource::kCachedRows)
      throw ConfigError("train.objective: '{}' needs the term '{}', which cannot be computed from cached activations",
                        objective.name, term.name);
}

}  // namespace tadapt

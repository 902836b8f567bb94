// The losses a run can be trained on, as a table: which terms an objective sums and where each term reads.
#pragma once

#include <string>
#include <vector>

namespace tadapt {

inline constexpr char kLocalObjective[] = "local";
inline constexpr char kBridgingObjective[] = "bridging";

/// Where a term takes its numbers from. A cached source can only serve kCachedRows.
enum class LossSource {
  kCachedRows,  ///< mlp_in and Δ of one layer: what an activation cache holds
  kModel,       ///< residual states or logits of a running model
};

struct LossTerm {
  const char* name;
  LossSource source;
};

struct Objective {
  const char* name;
  std::vector<LossTerm> terms;
};

/// The objectives train.objective may name.
const std::vector<Objective>& objectives();
/// ConfigError that lists the known names when there is none called `name`.
const Objective& find_objective(const std::string& name);
/// Whether all of its terms can be computed from cached rows.
bool needs_cached_rows_only(const Objective& objective);

}  // namespace tadapt

#include "runtime/train/bridging_options.h"

#include <algorithm>
#include <numeric>

#include "kernels/core/error.h"
#include "runtime/loss/loss.h"

namespace tadapt {
namespace {

constexpr std::int64_t kMostCutoffs = 64;

/// Of fixed ones how many there are, whatever the model.
std::int64_t cutoff_count(const LossOptions& options) {
  if (options.fixed_cutoffs.empty()) return options.cutoffs;
  std::int64_t count = 0;
  for (const auto& [first, last] : parse_layer_ranges(options.fixed_cutoffs)) count += std::int64_t{last} - first + 1;
  return count;
}

std::vector<int> fixed_cutoffs(const LossOptions& options, int layers) {
  std::vector<int> cutoffs;
  if (options.fixed_cutoffs.empty()) return cutoffs;
  for (const auto& [first, last] : parse_layer_ranges(options.fixed_cutoffs)) {
    if (last > layers) throw ConfigError("loss.fixed_cutoffs: {} is beyond the model's {} layers", last, layers);
    for (int k = first; k <= last; ++k) cutoffs.push_back(k);
  }
  return cutoffs;
}

}  // namespace

BridgingWeights bridging_weights(const LossOptions& options) {
  const bool code = options.recipe == Recipe::kCode;
  return {.kl_adapter = options.kl_adapter.value_or(1.0),
          .kl_bridge = options.kl_bridge.value_or(code ? 2.0 : 1.0),
          .residual_nmse = options.residual_nmse.value_or(1.0),
          .nmse_over_states = code ? OverStates::kMean : OverStates::kSum,
          .label = options.label,
          .sparsity = options.sparsity};
}

std::vector<int> cutoffs_of_step(const RunOptions& options, int layers, std::int64_t step) {
  std::vector<int> cutoffs = fixed_cutoffs(options.loss, layers);
  if (bridging_weights(options.loss).kl_bridge == 0.0) return {};  // no bridge counts
  if (!cutoffs.empty()) return cutoffs;
  const int first = options.loss.recipe == Recipe::kCode ? 0 : 1;
  return draw_cutoffs(options.train.seed, step, options.loss.cutoffs, first, layers);
}

int most_bridges(const LossOptions& options, int layers) {
  if (bridging_weights(options).kl_bridge == 0.0) return 0;
  if (options.fixed_cutoffs.empty())
    return std::min(options.cutoffs, options.backbone == Backbone::kTarget ? layers - 1 : layers);
  const BridgingSchedule schedule(layers, options.backbone, fixed_cutoffs(options, layers));
  return static_cast<int>(std::max(schedule.a2r.size(), schedule.r2a.size()));
}

std::int64_t sequence_leaves(const TrainOptions& options) {
  return std::gcd(options.reduction_leaves, options.batch_sequences);
}

Recording recording_of(Recompute recompute) {
  return recompute == Recompute::kNone ? Recording::kAll : Recording::kAllButHidden;
}

void require_objective_options(const RunOptions& options) {
  const LossOptions& loss = options.loss;
  if (options.train.objective == kBridgingObjective) {
    if (loss.sparsity_scale == SparsityScale::kRelative)
      throw ConfigError("loss.sparsity_scale: relative divides by scales that only the local objective knows");
    if (options.cache.source == RowSource::kStream)
      throw ConfigError("cache.source: stream: the objective {} has no cached rows that could be streamed",
                        kBridgingObjective);
    if (cutoff_count(loss) > kMostCutoffs)
      throw ConfigError("loss.fixed_cutoffs: {} cutoffs, at most {}", cutoff_count(loss), kMostCutoffs);
    return;
  }
  if (options.grid.branch_parallel > 1)
    throw ConfigError("grid.branch_parallel: {}: the objective {} has no branches that two ranks could share",
                      options.grid.branch_parallel, options.train.objective);
  const std::pair<const char*, bool> bridging_only[] = {
      {"loss.kl_adapter", loss.kl_adapter.has_value()},
      {"loss.kl_bridge", loss.kl_bridge.has_value()},
      {"loss.residual_nmse", loss.residual_nmse.has_value()},
      {"loss.label", loss.label > 0.0},
      {"loss.fixed_cutoffs", !loss.fixed_cutoffs.empty()},
      {"loss.cutoffs", loss.cutoffs != LossOptions{}.cutoffs},
      {"loss.recipe", loss.recipe != LossOptions{}.recipe},
      {"loss.backbone", loss.backbone != LossOptions{}.backbone},
      {"train.recompute", options.train.recompute != Recompute::kNone}};
  for (const auto& [key, is_set] : bridging_only)
    if (is_set)
      throw ConfigError("{}: the objective {} has no use for it; it belongs to train.objective: {}", key,
                        options.train.objective, kBridgingObjective);
}

}  // namespace tadapt

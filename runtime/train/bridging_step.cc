#include "runtime/train/bridging_step.h"

#include <algorithm>
#include <cmath>

#include "kernels/core/memory.h"
#include "runtime/train/bridging_options.h"
#include "runtime/train/local_step.h"
#include "runtime/train/non_finite_stop.h"

namespace tadapt {
namespace {

/// What each rank says at the end of a step, as doubles in this order; then of each trainee the fields below.
enum RankField : std::size_t {
  kStop,  // was a stop asked for
  kKlAdapter,
  kKlA2r,
  kKlR2a,
  kLabel,
  kResidualNmse,
  kLayerPasses,  // of one leaf
  kRankFields
};
enum TraineeField : std::size_t {
  kWeightedActivations,
  kActivePairs,
  kGradientNorm,
  kDeadShare,
  kBadTensor,  // place of the first parameter whose gradient, as far as this rank knows it, is not finite, or -1
  kTraineeFields
};

std::vector<TapedAdapter> taped(TrainingState& state) {
  std::vector<TapedAdapter> adapters;
  for (std::size_t i = 0; i < state.trainees.size(); ++i)
    adapters.push_back({.layer = state.trainees[i].layer,
                        .adapter = state.trainees[i].adapter.get(),
                        .masters = state.store.master_views(i),
                        .group = &state.store.group(i)});
  return adapters;
}

BridgingMemory memory_of(const RunOptions& options, std::int64_t leaf_tokens) {
  return {.leaf_tokens = leaf_tokens,
          .cutoffs = cutoff_count(options.loss),
          .recording = recording_of(options.train.recompute),
          .logits_budget_bytes = options.train.logits_bytes};
}

AdapterTape::Limits limits_of(const RunOptions& options, std::int64_t leaf_tokens) {
  return {.tokens = leaf_tokens,
          .branches = 1 + cutoff_count(options.loss),
          .memory = options.train.recompute == Recompute::kNone ? FeatureMemory::kKept : FeatureMemory::kRecomputed};
}

}  // namespace

struct BridgingStep::Work {
  std::int64_t step = 0;
  std::vector<int> cutoffs = {};
  BatchCounts whole = {};
  std::vector<BridgingValue> values = {};   ///< of this rank's leaves
  std::int64_t layer_passes = 0;            ///< of one of them
  std::vector<double> gradient_norms = {};  ///< by trainee
  double gradient_norm = 0.0;               ///< of all together
  std::vector<double> active_pairs = {};
  std::vector<int> bad_tensors = {};
  std::vector<double> shared = {};  ///< all ranks' fields
};

BridgingStep::BridgingStep(BridgingStepParts parts, std::int64_t total_steps)
    : parts_(parts),
      schedule_{parts.options.optim.learning_rate, parts.options.optim.warmup_fraction, total_steps},
      ramp_{parts.options.loss.sparsity_initial, parts.options.loss.sparsity_ramp_fraction, total_steps},
      settings_(adamw_settings(parts.options.optim)),
      weights_(bridging_weights(parts.options.loss)),
      pass_(parts.environment.context, parts.models, weights_, memory_of(parts.options, parts.leaf_tokens)),
      adapters_(parts.environment.context.device(), taped(parts.state), limits_of(parts.options, parts.leaf_tokens)),
      joiners_(parts.state.trainees.size()),
      exchange_(parts.environment.context, parts.group, parts.state) {
  for (const Trainee& trainee : parts.state.trainees) names_.push_back(trainee.name);
}

TrainingStep::Outcome BridgingStep::run(std::int64_t step) {
  Work work{.step = step,
            .cutoffs = cutoffs_of_step(parts_.options, parts_.models.pair.config().layers, step),
            .whole = parts_.batches.counts(step)};
  if (work.whole.labels == 0)
    throw DataError(
        "{}: no token of step {} has a next one to predict: its sequences, from line {} on, have one token each",
        parts_.options.corpus.train.string(), step + 1, parts_.batches.lines(step).front());
  backward(work);
  update(work);
  share(work);
  Outcome outcome{.metrics = combine(work)};
  const std::size_t per_rank = work.shared.size() / static_cast<std::size_t>(parts_.group.size());
  for (std::size_t at = kStop; at < work.shared.size(); at += per_rank)
    outcome.stop = outcome.stop || work.shared[at] > 0.0;
  require_finite(work, outcome.metrics);
  return outcome;
}

void BridgingStep::backward(Work& work) {
  BridgingWeights weights = weights_;
  weights.sparsity *= ramp_.at(work.step);
  for (std::size_t i = 0; i < joiners_.size(); ++i)
    joiners_[i].start({.destination = parts_.state.store.gradient(i),
                       .leaves = own_leaves(),
                       .square_sums = exchange_.exchanges() ? Tensor() : parts_.state.optimiser.square_sums(i)});
  const std::int64_t first = parts_.group.rank() * own_leaves();
  for (std::int64_t leaf = 0; leaf < own_leaves(); ++leaf) {
    const TokenBatch batch = parts_.batches.leaf(work.step, first + leaf);
    const bool last = leaf + 1 == own_leaves();
    const std::int64_t passes = pass_.layer_passes();
    work.values.push_back(pass_.value_and_gradient(
        parts_.environment.context, {.batch = batch,
                                     .cutoffs = work.cutoffs,
                                     .whole = work.whole,
                                     .sparsity = weights.sparsity,
                                     .adapters = adapters_,
                                     .gradients = {.slot = [&](std::size_t index) { return joiners_[index].slot(); },
                                                   .filled = [&](std::size_t index) { filled(index, last); }}}));
    work.layer_passes = pass_.layer_passes() - passes;
  }
}

/// A leaf's gradient is there; after the last one the exchange starts, beside the backward of the layers below.
void BridgingStep::filled(std::size_t index, bool last_leaf) {
  joiners_[index].push(parts_.environment.context);
  if (last_leaf) exchange_.start(index);
}

/// One norm over all layers clips them all.
void BridgingStep::update(Work& work) {
  Context& context = parts_.environment.context;
  TrainingState& state = parts_.state;
  double square_norm = 0.0;
  for (std::size_t i = state.trainees.size(); i-- > 0;) exchange_.join(i);
  for (std::size_t i = 0; i < state.trainees.size(); ++i) {
    const double square = state.optimiser.square_norm(context, i);
    work.gradient_norms.push_back(std::sqrt(square));
    square_norm += square;
    const Tensor counted = statistic_views(state.store.group(i), state.store.gradient(i))[kActiveCounts];
    const std::vector<float> counts = on_host<float>(context, counted);
    double pairs = 0.0;
    for (const float count : counts) pairs += count;
    work.active_pairs.push_back(pairs);
    work.bad_tensors.push_back(-1);
    if (std::isfinite(square)) {
      state.trainees[i].count_activity(counts, work.whole.tokens);
      continue;
    }
    const auto [begin, end] = state.optimiser.part(i);
    work.bad_tensors.back() =
        first_non_finite_parameter(context, state.store.group(i), state.store.gradient(i).rows(begin, end), begin);
  }
  work.gradient_norm = std::sqrt(square_norm);
  if (!std::isfinite(square_norm)) return;
  const AdamWUpdate update{.learning_rate = schedule_.at(work.step),
                           .step = work.step,
                           .gradient_scale = clip_scale(settings_, work.gradient_norm)};
  for (std::size_t i = 0; i < state.trainees.size(); ++i) {
    state.optimiser.update(context, state.store, i, settings_, update);
    exchange_.start_masters(i);
  }
  for (std::size_t i = 0; i < state.trainees.size(); ++i) {
    exchange_.join_masters(i);
    state.trainees[i].adapter->prepare(context, state.store.master_views(i));
  }
}

void BridgingStep::share(Work& work) {
  const auto joined = [&](const auto& of_leaf) {
    std::vector<double> leaves;
    for (const BridgingValue& value : work.values) leaves.push_back(of_leaf(value));
    return join_leaves(leaves);
  };
  std::vector<double> mine(kRankFields + kTraineeFields * names_.size(), 0.0);
  mine[kStop] = parts_.environment.stop_requested() ? 1.0 : 0.0;
  mine[kKlAdapter] = joined([](const BridgingValue& value) { return value.kl_adapter; });
  mine[kKlA2r] = joined([](const BridgingValue& value) { return value.kl_a2r; });
  mine[kKlR2a] = joined([](const BridgingValue& value) { return value.kl_r2a; });
  mine[kLabel] = joined([](const BridgingValue& value) { return value.label; });
  mine[kResidualNmse] = joined([](const BridgingValue& value) { return value.residual_nmse; });
  mine[kLayerPasses] = static_cast<double>(work.layer_passes);
  for (std::size_t i = 0; i < names_.size(); ++i) {
    double* fields = &mine[kRankFields + i * kTraineeFields];
    fields[kWeightedActivations] = joined([&](const BridgingValue& value) { return value.weighted_activations[i]; });
    fields[kActivePairs] = work.active_pairs[i];
    fields[kGradientNorm] = work.gradient_norms[i];
    fields[kDeadShare] = parts_.state.trainees[i].dead_share(parts_.options.train.dead_after_tokens);
    fields[kBadTensor] = work.bad_tensors[i];
  }
  work.shared = parts_.environment.world.all_gather(mine, fmt::format("metrics of step {}", work.step + 1));
}

StepMetrics BridgingStep::combine(const Work& work) const {
  const std::size_t per_rank = work.shared.size() / static_cast<std::size_t>(parts_.group.size());
  const auto joined = [&](std::size_t field) {
    std::vector<double> ranks;
    for (std::size_t at = field; at < work.shared.size(); at += per_rank) ranks.push_back(work.shared[at]);
    return join_leaves(ranks);
  };
  const auto labels = static_cast<double>(work.whole.labels), tokens = static_cast<double>(work.whole.tokens);
  const double kl_adapter = joined(kKlAdapter) / labels, kl_a2r = joined(kKlA2r) / labels;
  const double kl_r2a = joined(kKlR2a) / labels, label = joined(kLabel) / labels;
  const double nmse = joined(kResidualNmse) / static_cast<double>(work.whole.sequences);
  StepMetrics metrics{.step = work.step + 1,
                      .tokens = work.whole.tokens,
                      .learning_rate = schedule_.at(work.step),
                      .cutoffs = work.cutoffs,
                      .names = names_};
  double sparsity = 0.0;
  for (std::size_t i = 0; i < names_.size(); ++i) {
    const std::size_t fields = kRankFields + i * kTraineeFields;
    const double own = joined(fields + kWeightedActivations) / tokens;
    sparsity += own;
    metrics.trainees.push_back({.own = {{"sparsity", own}},
                                .l0 = work.shared[fields + kActivePairs] / tokens,
                                .dead_share = work.shared[fields + kDeadShare],
                                .gradient_norm = work.shared[fields + kGradientNorm]});
  }
  const double weight = weights_.sparsity * ramp_.at(work.step);
  const double loss = weights_.kl_adapter * kl_adapter + weights_.kl_bridge * (kl_a2r + kl_r2a) +
                      weights_.residual_nmse * nmse + weights_.label * label + weight * sparsity;
  metrics.whole = {{"loss", loss},
                   {"kl_adapter", kl_adapter},
                   {"residual_nmse", nmse},
                   {"kl_a2r", kl_a2r},
                   {"kl_r2a", kl_r2a},
                   {"sparsity", sparsity},
                   {"sparsity_weight", weight},
                   {"gradient_norm", work.gradient_norm},
                   {"layer_passes", work.shared[kLayerPasses]}};
  if (weights_.label > 0.0) metrics.whole.emplace_back("label", label);
  return metrics;
}

/// Where a pass over this rank's leaves first gives a number that is not finite; empty when it does not.
std::string BridgingStep::diagnose(const Work& work) {
  const std::int64_t first = parts_.group.rank() * own_leaves();
  for (std::int64_t leaf = 0; leaf < own_leaves(); ++leaf) {
    const TokenBatch batch = parts_.batches.leaf(work.step, first + leaf);
    const std::string found = pass_.first_non_finite(parts_.environment.context, batch, adapters_);
    if (!found.empty()) return found;
  }
  return {};
}

void BridgingStep::require_finite(const Work& work, const StepMetrics& metrics) {
  if (std::isfinite(metrics.whole.front().second) && std::isfinite(work.gradient_norm)) return;
  std::string where = "all layers", what = "the loss";
  for (std::size_t i = metrics.trainees.size(); i-- > 0;) {
    const int bad = static_cast<int>(work.shared[kRankFields + i * kTraineeFields + kBadTensor]);
    if (bad < 0) continue;
    where = fmt::format("layer {}", parts_.state.trainees[i].layer);
    what = "the gradient of " + parts_.state.store.group(i).parameters.at(static_cast<std::size_t>(bad)).name;
  }
  for (const std::string& found : parts_.environment.world.all_gather_text(diagnose(work), "what is not finite")) {
    const std::size_t colon = found.find(": ");
    if (colon == found.npos) continue;
    where = found.substr(0, colon);
    what = found.substr(colon + 2);
    break;
  }
  const std::int64_t samples = samples_per_step();
  fail_non_finite(parts_.environment.world,
                  non_finite_message(where, what, work.step + 1, {work.step * samples, (work.step + 1) * samples}));
}

HeldOutFigures BridgingStep::evaluate(std::int64_t steps) {
  if (parts_.held_out == nullptr) return {};
  // Batches of the leaves' size, the same for any number of ranks, which take turns.
  const std::int64_t each = std::max<std::int64_t>(1, parts_.batches.sequences() / parts_.batches.leaves());
  std::vector<TokenBatch> batches;
  std::int64_t tokens = 0;
  for (std::int64_t i = 0; i < parts_.held_out->size(); ++i) {
    const std::span<const std::int32_t> ids = parts_.held_out->sequence(i).ids;
    tokens += static_cast<std::int64_t>(ids.size());
    if (tokens > parts_.options.train.held_out_tokens) break;
    const bool full = batches.empty() || batches.back().sequences() == each ||
                      batches.back().tokens() + static_cast<std::int64_t>(ids.size()) > pass_.most_tokens();
    if (full) batches.emplace_back();
    batches.back().append(ids);
  }
  const auto ranks = static_cast<std::size_t>(parts_.group.size());
  const std::size_t per_rank = (batches.size() + ranks - 1) / ranks;
  std::vector<double> mine(per_rank, 0.0);
  double labels = 0.0;
  for (std::size_t i = 0; i < batches.size(); ++i) {
    labels += static_cast<double>(counts_of(batches[i]).labels);
    if (i % ranks != static_cast<std::size_t>(parts_.group.rank())) continue;
    mine[i / ranks] = pass_.evaluate(parts_.environment.context, batches[i], adapters_).kl_adapter;
  }
  const std::vector<double> all = parts_.group.all_gather(mine, "held-out divergences");
  if (labels == 0.0) return {};
  double kl = 0.0;
  for (std::size_t i = 0; i < batches.size(); ++i) kl += all[i % ranks * per_rank + i / ranks];
  if (!std::isfinite(kl))
    fail_non_finite(parts_.environment.world,
                    non_finite_message("all layers", "the held-out divergence", steps,
                                       {(steps - 1) * samples_per_step(), steps * samples_per_step()}));
  return {.whole = {{"kl_adapter", kl / labels}}};
}

}  // namespace tadapt

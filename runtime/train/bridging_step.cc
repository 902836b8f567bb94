#include "runtime/train/bridging_step.h"

#include <algorithm>
#include <cmath>

#include "kernels/core/memory.h"
#include "runtime/train/bridging_options.h"
#include "runtime/train/local_step.h"
#include "runtime/train/non_finite_stop.h"

namespace tadapt {
namespace {

std::vector<TapedAdapter> taped(TrainingState& state) {
  std::vector<TapedAdapter> adapters;
  for (std::size_t i = 0; i < state.trainees.size(); ++i)
    adapters.push_back({.layer = state.trainees[i].layer,
                        .adapter = state.trainees[i].adapter.get(),
                        .masters = state.store.master_views(i),
                        .group = &state.store.group(i)});
  return adapters;
}

BridgingMemory memory_of(const RunOptions& options, std::int64_t leaf_tokens, int layers) {
  return {.leaf_tokens = leaf_tokens,
          .cutoffs = most_bridges(options.loss, layers),
          .recording = recording_of(options.train.recompute),
          .logits_budget_bytes = options.train.logits_bytes};
}

}  // namespace

BridgingPart part_of_rank(const ProcessGrid& grid, int rank, int layers) {
  const int block = grid.block_of(rank);
  BridgingPart part{.layers = {.begin = block == 0 ? 0 : grid.layers_of_block(block).front(),
                               .end = block + 1 == grid.blocks() ? layers : grid.layers_of_block(block + 1).front()}};
  if (grid.branch_parallel() > 1) part.side = grid.branch_of(rank) == 0 ? BranchSide::kTarget : BranchSide::kAdapter;
  return part;
}

AdapterTape::Limits tape_limits(const RunOptions& options, const BridgingMemory& memory, const BridgingPart& part) {
  return {.tokens = memory.leaf_tokens,
          .branches = (part.runs_adapter() ? 1 : 0) + (part.runs_target() ? memory.cutoffs : 0),
          .first_branch = part.runs_adapter() ? 0 : 1,
          .memory = options.train.recompute == Recompute::kNone ? FeatureMemory::kKept : FeatureMemory::kRecomputed};
}

struct BridgingStep::Work {
  std::int64_t step = 0;
  std::vector<int> cutoffs = {};
  BatchCounts whole = {};
  std::vector<BridgingValue> values = {};    ///< of this rank's leaves
  double layer_passes = 0.0;                 ///< of one of them
  double gradient_norm = 0.0;                ///< of all layers together
  std::vector<TraineeReport> trainees = {};  ///< this rank's
};

BridgingStep::BridgingStep(BridgingStepParts parts, std::int64_t total_steps)
    : parts_(parts),
      schedule_{parts.options.optim.learning_rate, parts.options.optim.warmup_fraction, total_steps},
      ramp_{parts.options.loss.sparsity_initial, parts.options.loss.sparsity_ramp_fraction, total_steps},
      settings_(adamw_settings(parts.options.optim)),
      weights_(bridging_weights(parts.options.loss)),
      pass_(parts.environment.context, parts.models, weights_,
            memory_of(parts.options, parts.leaf_tokens, parts.models.pair.config().layers),
            {.part = part_of_rank(parts.grid, parts.environment.world.rank(), parts.models.pair.config().layers),
             .link = parts.link,
             .leaves = parts.grid.blocks() == 1 ? 1 : static_cast<int>(own_leaves())}),
      joiners_(parts.state.trainees.size()),
      exchange_(parts.environment.context, parts.group, parts.state) {
  for (int leaf = 0; leaf < pass_.leaves_under_way(); ++leaf)
    tapes_.push_back(std::make_unique<AdapterTape>(parts.environment.context.device(), taped(parts.state),
                                                   tape_limits(parts.options, pass_.memory(), pass_.part())));
  for (const int layer : parts.grid.layers()) names_.push_back(trainee_name(layer));
  held_out_ = held_out_batches();
  if (parts.held_out != nullptr && held_out_.empty())
    parts.environment.print(
        fmt::format("WARNING: train.held_out_tokens is {}: no sequence of {} that has a next token to predict is as "
                    "short, and there will be no held-out figures",
                    parts.options.train.held_out_tokens, parts.options.corpus.validation.string()));
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
  join(work);
  update(work);
  const BridgingReport report = share(work);
  Outcome outcome{.runs = {combine(work, report)}, .stop = report.stop()};
  require_finite(work, outcome.runs.front(), report);
  return outcome;
}

void BridgingStep::backward(Work& work) {
  for (std::size_t i = 0; i < joiners_.size(); ++i)
    joiners_[i].start({.destination = parts_.state.store.gradient(i),
                       .leaves = own_leaves(),
                       .square_sums = exchange_.exchanges() ? Tensor() : parts_.state.optimiser.square_sums(i)});
  std::vector<TokenBatch> batches;
  for (std::int64_t leaf = 0; leaf < own_leaves(); ++leaf)
    batches.push_back(parts_.batches.leaf(work.step, first_leaf() + leaf));
  std::vector<BridgingWork> leaves;
  for (std::int64_t leaf = 0; leaf < own_leaves(); ++leaf) {
    const auto at = static_cast<std::size_t>(leaf);
    leaves.push_back({.batch = batches[at],
                      .cutoffs = work.cutoffs,
                      .whole = work.whole,
                      .sparsity = sparsity_at(work.step),
                      .adapters = *tapes_[at % tapes_.size()],
                      .gradients = {.slot = [this](std::size_t index) { return joiners_[index].slot(); },
                                    .filled = [this, leaf](std::size_t index) { filled(index, leaf); }}});
  }
  const std::int64_t passes = pass_.layer_passes();
  work.values = pass_.run(leaves);
  const std::int64_t of_one_leaf = (pass_.layer_passes() - passes) / own_leaves();
  work.layer_passes = static_cast<double>(of_one_leaf);
}

/// A leaf's gradient is there; after the last one the exchange starts, beside the backward of the layers below.
void BridgingStep::filled(std::size_t index, std::int64_t leaf) {
  joiners_[index].push(parts_.environment.context);
  if (leaf + 1 == own_leaves()) exchange_.start(index);
}

/// Waits for the gradients, and takes one norm over the layers of all blocks.
void BridgingStep::join(Work& work) {
  Context& context = parts_.environment.context;
  TrainingState& state = parts_.state;
  const std::size_t most = parts_.grid.most_layers();
  std::vector<double> squares(most, 0.0);
  for (std::size_t i = state.trainees.size(); i-- > 0;) exchange_.join(i);
  for (std::size_t i = 0; i < state.trainees.size(); ++i) squares[i] = state.optimiser.square_norm(context, i);
  const std::vector<double> all = sharing_.during(
      [&] { return parts_.environment.world.all_gather(squares, fmt::format("norms of step {}", work.step + 1)); });
  double square_norm = 0.0;
  for (int block = 0; block < parts_.grid.blocks(); ++block)
    for (std::size_t place = 0; place < most; ++place)
      square_norm += all[static_cast<std::size_t>(parts_.grid.rank_of(block, 0)) * most + place];
  work.gradient_norm = std::sqrt(square_norm);
  for (std::size_t i = 0; i < state.trainees.size(); ++i) {
    TraineeReport one{.gradient_norm = std::sqrt(squares[i])};
    const Tensor counted = statistic_views(state.store.group(i), state.store.gradient(i))[kActiveCounts];
    const std::vector<float> counts = on_host<float>(context, counted);
    for (const float count : counts) one.active_pairs += count;
    if (std::isfinite(squares[i])) {
      state.trainees[i].count_activity(counts, work.whole.tokens);
    } else {
      const auto [begin, end] = state.optimiser.part(i);
      one.bad_tensor =
          first_non_finite_parameter(context, state.store.group(i), state.store.gradient(i).rows(begin, end), begin);
    }
    one.dead_share = state.trainees[i].dead_share(parts_.options.train.dead_after_tokens);
    work.trainees.push_back(one);
  }
}

/// The one norm clips all layers.
void BridgingStep::update(Work& work) {
  Context& context = parts_.environment.context;
  TrainingState& state = parts_.state;
  if (!std::isfinite(work.gradient_norm)) return;
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

double BridgingStep::exchange_stall_seconds() const {
  const double between_blocks = parts_.link == nullptr ? 0.0 : parts_.link->stall_seconds();
  return between_blocks + exchange_.stall_seconds() + sharing_.seconds();
}

BridgingReport BridgingStep::share(const Work& work) {
  const auto joined = [&](const auto& of_leaf) {
    std::vector<double> leaves;
    for (const BridgingValue& value : work.values) leaves.push_back(of_leaf(value));
    return join_leaves(leaves);
  };
  BridgingReport::Rank mine{.stop = parts_.environment.stop_requested(), .sums = {}, .trainees = work.trainees};
  mine.sums = {.kl_adapter = joined([](const BridgingValue& value) { return value.kl_adapter; }),
               .kl_a2r = joined([](const BridgingValue& value) { return value.kl_a2r; }),
               .kl_r2a = joined([](const BridgingValue& value) { return value.kl_r2a; }),
               .label = joined([](const BridgingValue& value) { return value.label; }),
               .residual_nmse = {},
               .layer_passes = work.layer_passes};
  const int states = parts_.models.pair.config().layers + 1;
  for (std::size_t state = 0; state < static_cast<std::size_t>(states); ++state)
    mine.sums.residual_nmse.push_back(joined([&](const BridgingValue& value) { return value.residual_nmse[state]; }));
  for (std::size_t i = 0; i < mine.trainees.size(); ++i)
    mine.trainees[i].weighted_activations =
        joined([&](const BridgingValue& value) { return value.weighted_activations[i]; });
  return sharing_.during([&] {
    return BridgingReport(parts_.environment.world, parts_.grid, states, mine,
                          fmt::format("metrics of step {}", work.step + 1));
  });
}

StepMetrics BridgingStep::combine(const Work& work, const BridgingReport& report) const {
  const auto labels = static_cast<double>(work.whole.labels), tokens = static_cast<double>(work.whole.tokens);
  const BridgingSums& sums = report.sums();
  const double kl_adapter = sums.kl_adapter / labels, kl_a2r = sums.kl_a2r / labels, kl_r2a = sums.kl_r2a / labels;
  const double nmse = report.residual_nmse() / static_cast<double>(work.whole.sequences);
  StepMetrics metrics{.step = work.step + 1,
                      .tokens = work.whole.tokens,
                      .learning_rate = schedule_.at(work.step),
                      .cutoffs = work.cutoffs,
                      .names = names_};
  double sparsity = 0.0;
  for (const TraineeReport& one : report.trainees()) {
    const double own = one.weighted_activations / tokens;
    sparsity += own;
    metrics.trainees.push_back({.own = {{"sparsity", own}},
                                .l0 = one.active_pairs / tokens,
                                .dead_share = one.dead_share,
                                .gradient_norm = one.gradient_norm});
  }
  const double weight = sparsity_at(work.step);
  const double loss = weights_.kl_adapter * kl_adapter + weights_.kl_bridge * (kl_a2r + kl_r2a) +
                      weights_.residual_nmse * nmse + weights_.label * sums.label / labels + weight * sparsity;
  metrics.whole = {{"loss", loss},
                   {"kl_adapter", kl_adapter},
                   {"residual_nmse", nmse},
                   {"sparsity", sparsity},
                   {"sparsity_weight", weight},
                   {"gradient_norm", work.gradient_norm},
                   {"layer_passes", sums.layer_passes}};
  if (weights_.kl_bridge > 0.0) {
    metrics.whole.emplace_back("kl_a2r", kl_a2r);
    metrics.whole.emplace_back("kl_r2a", kl_r2a);
  }
  if (weights_.label > 0.0) metrics.whole.emplace_back("label", sums.label / labels);
  return metrics;
}

/// Where a pass over this rank's leaves first gives a number that is not finite; empty when it does not.
std::string BridgingStep::diagnose(const Work& work) {
  std::string first;
  for (std::int64_t leaf = 0; leaf < own_leaves(); ++leaf) {
    const TokenBatch batch = parts_.batches.leaf(work.step, first_leaf() + leaf);
    const std::string found = pass_.first_non_finite(batch, *tapes_.front());
    if (first.empty()) first = found;
  }
  return first;
}

void BridgingStep::require_finite(const Work& work, const StepMetrics& metrics, const BridgingReport& report) {
  if (std::isfinite(metrics.whole.front().second) && std::isfinite(work.gradient_norm)) return;
  std::string where = "all layers", what = "the loss";
  // What is not finite goes on to all layers below: the last one named is where it came from.
  for (std::size_t i = 0; i < report.trainees().size(); ++i) {
    const int bad = report.trainees()[i].bad_tensor;
    if (bad < 0) continue;
    where = fmt::format("layer {}", parts_.grid.layers()[i]);
    what = "the gradient of " + parts_.state.store.group(0).parameters.at(static_cast<std::size_t>(bad)).name;
  }
  // Ranks of earlier layers say it first.
  for (const std::string& found : parts_.environment.world.all_gather_text(diagnose(work), "what is not finite")) {
    const std::size_t colon = found.find(": ");
    if (colon == found.npos) continue;
    where = found.substr(0, colon);
    what = found.substr(colon + 2);
    break;
  }
  const std::int64_t samples = samples_per_step();
  throw DivergedRun(0,
                    non_finite_message(where, what, work.step + 1, {work.step * samples, (work.step + 1) * samples}));
}

/// Batches of the leaves' size, the same for any number of ranks.
std::vector<TokenBatch> BridgingStep::held_out_batches() const {
  if (parts_.held_out == nullptr) return {};
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
  const auto labels = [](const TokenBatch& batch) { return counts_of(batch).labels; };
  if (std::ranges::all_of(batches, [&](const TokenBatch& batch) { return labels(batch) == 0; })) batches.clear();
  return batches;
}

/// The parts of the grid take the batches in turn. Nothing when a stop was asked for meanwhile.
std::optional<std::vector<HeldOutFigures>> BridgingStep::evaluate(std::int64_t steps, Patience patience) {
  if (held_out_.empty()) return std::vector<HeldOutFigures>{};
  const RunEnvironment& environment = parts_.environment;
  const ProcessGrid& grid = parts_.grid;
  const auto members = static_cast<std::size_t>(grid.data_parallel());
  const auto place = static_cast<std::size_t>(grid.part_of(environment.world.rank()));
  double kl = 0.0, labels = 0.0;
  for (std::size_t round = 0; round < held_out_.size(); round += members) {
    environment.heartbeat(fmt::format("held-out divergence after step {}", steps));
    std::vector<double> mine{patience == Patience::kUntilStop && environment.stop_requested() ? 1.0 : 0.0, 0.0};
    if (round + place < held_out_.size()) mine[1] = pass_.divergence(held_out_[round + place], *tapes_.front());
    const std::vector<double> all = environment.world.all_gather(mine, "held-out divergences");
    for (std::size_t member = 0; member < members && round + member < held_out_.size(); ++member) {
      labels += static_cast<double>(counts_of(held_out_[round + member]).labels);
      // The last block's rank that runs the adapter model knows it, the others say 0.
      for (std::size_t rank = 0; rank < all.size() / mine.size(); ++rank) {
        if (all[rank * mine.size()] > 0.0) return std::nullopt;
        if (static_cast<std::size_t>(grid.part_of(static_cast<int>(rank))) == member) kl += all[rank * mine.size() + 1];
      }
    }
  }
  if (!std::isfinite(kl))
    throw DivergedRun(0, non_finite_message("all layers", "the held-out divergence", steps,
                                            {(steps - 1) * samples_per_step(), steps * samples_per_step()}));
  return std::vector<HeldOutFigures>{{.whole = {{"kl_adapter", kl / labels}}}};
}

}  // namespace tadapt

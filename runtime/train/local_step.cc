#include "runtime/train/local_step.h"

#include <algorithm>
#include <cmath>

#include "kernels/core/memory.h"
#include "runtime/train/state_shards.h"

namespace tadapt {
namespace {

/// What each rank says of each of its trainees at the end of a step, as doubles in this order.
enum Field : std::size_t {
  kSquareError,
  kWeightedActivations,
  kActivePairs,
  kGradientNorm,
  kDeadShare,
  kBadTensor,  // place of the first parameter whose gradient, as far as this rank knows it, is not finite, or -1
  kFields
};
constexpr std::size_t kStopField = 0;   // of a rank: was a stop asked for
constexpr std::size_t kRankFields = 1;  // before the trainees' fields

LocalLossPass::Limits limits_of(const std::vector<Trainee>& trainees, std::int64_t leaf_tokens) {
  LocalLossPass::Limits limits{.tokens = leaf_tokens, .shape = {1, 1}};
  for (const Trainee& trainee : trainees) {
    const AdapterShape& shape = trainee.adapter->shape();
    limits.shape.features = std::max(limits.shape.features, shape.features);
    limits.shape.model_width = std::max(limits.shape.model_width, shape.model_width);
    limits.sparse_below = std::max(limits.sparse_below, trainee.adapter->compute().sparse_below);
  }
  return limits;
}

/// Of this rank's leaves, each [square error, weighted activations].
LocalLossValue joined_value(const std::vector<double>& leaves) {
  std::vector<double> square_errors, weighted_activations;
  for (std::size_t i = 0; i < leaves.size(); i += 2) {
    square_errors.push_back(leaves[i]);
    weighted_activations.push_back(leaves[i + 1]);
  }
  return {join_leaves(square_errors), join_leaves(weighted_activations)};
}

}  // namespace

AdamWSettings adamw_settings(const OptimOptions& options) {
  return {.beta1 = options.beta1,
          .beta2 = options.beta2,
          .epsilon = options.epsilon,
          .weight_decay = options.weight_decay,
          .clip_norm = options.clip_norm};
}

struct LocalStep::Work {
  LocalLossValue value;
  double gradient_norm = 0.0;
  double active_pairs = 0.0;
  int bad_tensor = -1;
  bool finite() const { return std::isfinite(gradient_norm); }  ///< if not, nothing was changed
};

LocalStep::LocalStep(LocalStepParts parts, std::int64_t total_steps)
    : parts_(parts),
      schedule_{parts.options.optim.learning_rate, parts.options.optim.warmup_fraction, total_steps},
      ramp_{parts.options.loss.sparsity_initial, parts.options.loss.sparsity_ramp_fraction, total_steps},
      settings_(adamw_settings(parts.options.optim)),
      leaf_tokens_(parts.options.train.batch_tokens / parts.options.train.reduction_leaves),
      pass_(parts.environment.context.device(), limits_of(parts.state.trainees, leaf_tokens_)),
      upload_(parts.environment.context),
      exchange_(parts.environment.context, parts.group, parts.state),
      values_(parts.environment.context.device(), DType::kFloat64,
              {static_cast<std::int64_t>(parts.state.trainees.size()), leaves(), 2}) {
  for (const int layer : parts.grid.layers()) names_.push_back(trainee_name(layer));
}

/// On this rank.
std::int64_t LocalStep::leaves() const { return parts_.options.train.reduction_leaves / parts_.grid.data_parallel(); }

/// [leaves, 2] of one trainee.
Tensor LocalStep::values(std::size_t index) const {
  const auto at = static_cast<std::int64_t>(index);
  return values_.tensor().rows(at, at + 1).reshaped({leaves(), 2});
}

/// With the weight that sparsity has at this step.
LocalLoss LocalStep::loss_at(LocalLoss loss, std::int64_t step) const {
  loss.sparsity *= ramp_.at(step);
  return loss;
}

TrainingStep::Outcome LocalStep::run(std::int64_t step) {
  const ActivationBatch& batch = parts_.loader.next();
  std::vector<Work> work(parts_.state.trainees.size());
  if (!work.empty()) upload_.start(batch.layers.front());
  // What the ranks exchange for one trainee runs beside the backward of the next.
  for (std::size_t i = 0; i < work.size() + 2; ++i) {
    if (i < work.size()) backward(i, step, rows_of(i, batch));
    if (i >= 1 && i - 1 < work.size()) update(i - 1, step, work[i - 1]);
    if (i >= 2) prepare(i - 2, work[i - 2]);
  }

  Outcome outcome;
  outcome.runs.assign(runs(), {.step = step + 1,
                               .tokens = parts_.options.train.batch_tokens,
                               .learning_rate = schedule_.at(step),
                               .names = names_});
  const std::vector<double> shared = share(step, work);
  const std::size_t per_rank = shared.size() / static_cast<std::size_t>(parts_.grid.ranks());
  for (std::size_t at = kStopField; at < shared.size(); at += per_rank) outcome.stop = outcome.stop || shared[at] > 0.0;
  std::size_t trainee = 0;  // of all, layer after layer
  for (int block = 0; block < parts_.grid.blocks(); ++block) {
    for (std::size_t place = 0; place < trainees_of_block(block); ++place, ++trainee) {
      TraineeMetrics metrics = combine(shared, block, place, loss_at(parts_.losses[trainee], step));
      require_finite(metrics, trainee, bad_tensor(shared, block, place), step + 1);
      outcome.runs[trainee % runs()].trainees.push_back(std::move(metrics));
    }
  }
  return outcome;
}

/// x and Δ of a trainee's layer, copied once for all of its runs.
const ActivationBatch::Layer& LocalStep::rows_of(std::size_t index, const ActivationBatch& batch) {
  if (index % runs() != 0) return rows_;
  rows_ = upload_.take();
  const std::size_t next = index / runs() + 1;
  if (next < batch.layers.size()) upload_.start(batch.layers[next]);
  return rows_;
}

void LocalStep::backward(std::size_t index, std::int64_t step, const ActivationBatch::Layer& rows) {
  trace("backward", index);
  Context& context = parts_.environment.context;
  Trainee& trainee = parts_.state.trainees[index];
  const LocalLoss loss = loss_at(trainee.loss, step);
  const ParameterGroup& layout = parts_.state.store.group(index);
  const Tensor gradient = parts_.state.store.gradient(index);
  const ParameterTensors masters = parts_.state.store.master_views(index);
  joiner_.start({.destination = gradient,
                 .leaves = leaves(),
                 .square_sums = exchange_.exchanges() ? Tensor() : parts_.state.optimiser.square_sums(index)});
  for (std::int64_t leaf = 0; leaf < leaves(); ++leaf) {
    const Tensor slot = joiner_.slot();
    clear_padding(context, layout, slot);
    const std::int64_t begin = leaf * leaf_tokens_;
    pass_.value_and_gradient(context, {.adapter = *trainee.adapter,
                                       .loss = loss,
                                       .x = rows.x.rows(begin, begin + leaf_tokens_),
                                       .delta = rows.delta.rows(begin, begin + leaf_tokens_),
                                       .masters = masters,
                                       .group = layout,
                                       .gradient = slot,
                                       .value = values(index).rows(leaf, leaf + 1).reshaped({2})});
    joiner_.push(context);
  }
  trace("exchange-started", index);
  exchange_.start(index);
}

void LocalStep::update(std::size_t index, std::int64_t step, Work& work) {
  Context& context = parts_.environment.context;
  TrainingState& state = parts_.state;
  exchange_.join(index);
  trace("exchange-joined", index);
  work.gradient_norm = std::sqrt(state.optimiser.square_norm(context, index));
  if (work.finite())
    state.optimiser.update(context, state.store, index, settings_,
                           {.learning_rate = schedule_.at(step),
                            .step = step,
                            .gradient_scale = clip_scale(settings_, work.gradient_norm)});
  work.value = joined_value(on_host<double>(context, values(index)));
  const Tensor counted = statistic_views(state.store.group(index), state.store.gradient(index))[kActiveCounts];
  const std::vector<float> counts = on_host<float>(context, counted);
  for (const float count : counts) work.active_pairs += count;
  if (!work.finite()) {
    const auto [begin, end] = state.optimiser.part(index);
    work.bad_tensor = first_non_finite_parameter(context, state.store.group(index),
                                                 state.store.gradient(index).rows(begin, end), begin);
    return;
  }
  state.trainees[index].count_activity(counts, parts_.options.train.batch_tokens);
  exchange_.start_masters(index);
}

void LocalStep::prepare(std::size_t index, Work& work) {
  if (!work.finite()) return;
  exchange_.join_masters(index);
  parts_.state.trainees[index].adapter->prepare(parts_.environment.context, parts_.state.store.master_views(index));
  trace("updated", index);
}

std::size_t LocalStep::shared_fields(std::size_t trainees) { return kRankFields + kFields * trainees; }

std::vector<double> LocalStep::share(std::int64_t step, const std::vector<Work>& work) {
  // The first block has the most layers, so this many fields serve every rank.
  std::vector<double> mine(shared_fields(trainees_of_block(0)), 0.0);
  mine[kStopField] = parts_.environment.stop_requested() ? 1.0 : 0.0;
  for (std::size_t i = 0; i < work.size(); ++i) {
    double* fields = &mine[kRankFields + i * kFields];
    fields[kSquareError] = work[i].value.square_error;
    fields[kWeightedActivations] = work[i].value.weighted_activations;
    fields[kActivePairs] = work[i].active_pairs;
    fields[kGradientNorm] = work[i].gradient_norm;
    fields[kDeadShare] = parts_.state.trainees[i].dead_share(parts_.options.train.dead_after_tokens);
    fields[kBadTensor] = work[i].bad_tensor;
  }
  return sharing_.during(
      [&] { return parts_.environment.world.all_gather(mine, fmt::format("metrics of step {}", step + 1)); });
}

TraineeMetrics LocalStep::combine(const std::vector<double>& shared, int block, std::size_t place,
                                  const LocalLoss& loss) const {
  const ProcessGrid& grid = parts_.grid;
  const std::size_t per_rank = shared.size() / static_cast<std::size_t>(grid.ranks());
  const auto field = [&](int index, Field which) {
    return shared[static_cast<std::size_t>(grid.rank_of(block, index)) * per_rank + kRankFields + place * kFields +
                  which];
  };
  const auto joined = [&](Field which) {
    std::vector<double> ranks;
    for (int index = 0; index < grid.data_parallel(); ++index) ranks.push_back(field(index, which));
    return join_leaves(ranks);
  };
  const double tokens = static_cast<double>(parts_.options.train.batch_tokens);
  const double nmse = joined(kSquareError) / (tokens * loss.delta_scale * loss.delta_scale);
  return {.own = {{"loss", nmse + loss.sparsity_scale() * joined(kWeightedActivations)}, {"nmse", nmse}},
          .l0 = field(0, kActivePairs) / tokens,
          .dead_share = field(0, kDeadShare),
          .gradient_norm = field(0, kGradientNorm)};
}

/// Each rank says what it found in its part of the gradient.
int LocalStep::bad_tensor(const std::vector<double>& shared, int block, std::size_t place) const {
  const std::size_t per_rank = shared.size() / static_cast<std::size_t>(parts_.grid.ranks());
  int first = -1;
  for (int index = 0; index < parts_.grid.data_parallel(); ++index) {
    const std::size_t of_rank = static_cast<std::size_t>(parts_.grid.rank_of(block, index)) * per_rank;
    const int found = static_cast<int>(shared[of_rank + kRankFields + place * kFields + kBadTensor]);
    if (found >= 0 && (first < 0 || found < first)) first = found;
  }
  return first;
}

void LocalStep::require_finite(const TraineeMetrics& metrics, std::size_t trainee, int bad_tensor,
                               std::int64_t steps) const {
  if (std::isfinite(metrics.own.front().second) && std::isfinite(metrics.gradient_norm)) return;
  const ParameterGroup& layout = parts_.state.store.group(0);  // the parameters' order is every trainee's
  fail(trainee,
       bad_tensor < 0 ? "the loss"
                      : "the gradient of " + layout.parameters.at(static_cast<std::size_t>(bad_tensor)).name,
       steps);
}

void LocalStep::fail(std::size_t trainee, const std::string& what, std::int64_t steps) const {
  const std::string where = fmt::format("layer {}", parts_.grid.layers()[trainee / runs()]);
  const std::int64_t samples = samples_per_step();
  throw DivergedRun(static_cast<int>(trainee % runs()),
                    non_finite_message(where, what, steps, {(steps - 1) * samples, steps * samples}));
}

std::optional<std::vector<HeldOutFigures>> LocalStep::evaluate(std::int64_t steps, Patience /*patience*/) {
  std::vector<HeldOutFigures> figures(runs());
  const std::vector<Figures> all = parts_.held_out.evaluate(parts_.environment.context, pass_, parts_.state.trainees);
  for (std::size_t trainee = 0; trainee < all.size(); ++trainee) {
    if (!std::isfinite(all[trainee].front().second)) fail(trainee, "the held-out error", steps);
    HeldOutFigures& run = figures[trainee % runs()];
    run.names = names_;
    run.trainees.push_back(all[trainee]);
  }
  return figures;
}

void LocalStep::trace(const char* what, std::size_t index) const {
  if (parts_.trace) parts_.trace(what, parts_.state.trainees[index].name);
}

}  // namespace tadapt

#include "runtime/train/trainer.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <tuple>

#include "kernels/core/memory.h"
#include "kernels/optim.h"
#include "runtime/train/agreement.h"
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

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace

struct Trainer::Work {
  LocalLossValue value;
  UpdateReport update;
  double active_pairs = 0.0;
  int bad_tensor = -1;
  std::unique_ptr<PendingExchange> gradient, statistics, masters;
};

Trainer::Trainer(TrainerParts parts, std::int64_t total_steps)
    : parts_(parts),
      total_steps_(total_steps),
      schedule_{parts.options.optim.learning_rate, parts.options.optim.warmup_fraction, total_steps},
      settings_{.beta1 = parts.options.optim.beta1,
                .beta2 = parts.options.optim.beta2,
                .epsilon = parts.options.optim.epsilon,
                .weight_decay = parts.options.optim.weight_decay,
                .clip_norm = parts.options.optim.clip_norm},
      leaf_tokens_(parts.options.train.batch_tokens / parts.options.train.reduction_leaves),
      pass_(parts.environment.context.device(), limits_of(parts.trainees, leaf_tokens_)),
      upload_(parts.environment.context),
      values_(parts.environment.context.device(), DType::kFloat64,
              {static_cast<std::int64_t>(parts.trainees.size()), leaves(), 2}) {
  for (const int layer : parts.grid.layers()) names_.push_back(trainee_name(layer));
}

/// On this rank.
std::int64_t Trainer::leaves() const { return parts_.options.train.reduction_leaves / parts_.grid.data_parallel(); }

/// [leaves, 2] of one trainee.
Tensor Trainer::values(std::size_t index) const {
  const auto at = static_cast<std::int64_t>(index);
  return values_.tensor().rows(at, at + 1).reshaped({leaves(), 2});
}

TrainingOutcome Trainer::run(std::int64_t first_step) {
  const std::int64_t batch_tokens = parts_.options.train.batch_tokens;
  ProgressReport progress("train", "tokens", total_steps_ * batch_tokens, first_step * batch_tokens,
                          parts_.options.log.every_seconds, parts_.environment.print);
  for (Trainee& trainee : parts_.trainees) {
    const auto index = static_cast<std::size_t>(&trainee - parts_.trainees.data());
    trainee.adapter->prepare(parts_.environment.context, parts_.store.master_views(index));
  }
  TrainingOutcome outcome;
  outcome.step = first_step;
  while (outcome.step < total_steps_ && !stop_) {
    parts_.environment.heartbeat(fmt::format("step {}", outcome.step + 1));
    StepMetrics metrics;
    train_step(outcome.step, metrics);
    ++outcome.step;
    if (parts_.log != nullptr) log_step(metrics, progress);
    const bool last = outcome.step == total_steps_;
    // Also before a stop: the resumed run starts behind this step.
    if (last || due(outcome.step, parts_.options.train.evaluate_every_steps)) evaluate(outcome.step);
    if (stop_ || last || due(outcome.step, parts_.options.checkpoint.every_steps)) {
      outcome.checkpoint = save(outcome.step);
      if (parts_.log != nullptr)
        parts_.log->timing({.step = outcome.step,
                            .seconds = progress.seconds(),
                            .tokens_per_second = progress.rate(),
                            .data_stall_seconds = parts_.loader.stall_seconds(),
                            .checkpoint_seconds = checkpoint_seconds_,
                            .ranks = parts_.environment.world.size()});
    }
  }
  outcome.finished = outcome.step == total_steps_;
  return outcome;
}

void Trainer::train_step(std::int64_t step, StepMetrics& metrics) {
  const ActivationBatch& batch = parts_.loader.next();
  std::vector<Work> work(parts_.trainees.size());
  if (!work.empty()) upload_.start(batch.layers.front());
  // What the ranks exchange for one trainee runs beside the backward of the next.
  for (std::size_t i = 0; i < work.size() + 2; ++i) {
    if (i < work.size()) backward(i, batch, work[i]);
    if (i >= 1 && i - 1 < work.size()) update(i - 1, step, work[i - 1]);
    if (i >= 2) prepare(i - 2, work[i - 2]);
  }

  metrics = {.step = step + 1, .learning_rate = schedule_.at(step), .names = names_, .trainees = {}};
  const std::vector<double> shared = share(step, work);
  const std::size_t per_rank = shared.size() / static_cast<std::size_t>(parts_.grid.ranks());
  for (std::size_t at = kStopField; at < shared.size(); at += per_rank) stop_ = stop_ || shared[at] > 0.0;
  std::vector<int> bad_tensors;
  for (int block = 0; block < parts_.grid.blocks(); ++block) {
    for (std::size_t place = 0; place < parts_.grid.layers_of_block(block).size(); ++place) {
      metrics.trainees.push_back(combine(shared, block, place, parts_.losses[metrics.trainees.size()]));
      bad_tensors.push_back(bad_tensor(shared, block, place));
    }
  }
  require_finite(metrics, bad_tensors);
}

void Trainer::backward(std::size_t index, const ActivationBatch& batch, Work& work) {
  trace("backward", index);
  Context& context = parts_.environment.context;
  Trainee& trainee = parts_.trainees[index];
  const ParameterGroup& layout = parts_.store.group(index);
  const Tensor gradient = parts_.store.gradient(index);
  const ParameterTensors masters = parts_.store.master_views(index);
  const auto [x, delta] = upload_.take();
  if (index + 1 < batch.layers.size()) upload_.start(batch.layers[index + 1]);
  joiner_.start({.destination = gradient,
                 .leaves = leaves(),
                 .square_sums = exchanges() ? Tensor() : parts_.optimiser.square_sums(index)});
  for (std::int64_t leaf = 0; leaf < leaves(); ++leaf) {
    const Tensor slot = joiner_.slot();
    clear_padding(context, layout, slot);
    const std::int64_t begin = leaf * leaf_tokens_;
    pass_.value_and_gradient(context, {.adapter = *trainee.adapter,
                                       .loss = trainee.loss,
                                       .x = x.rows(begin, begin + leaf_tokens_),
                                       .delta = delta.rows(begin, begin + leaf_tokens_),
                                       .masters = masters,
                                       .group = layout,
                                       .gradient = slot,
                                       .value = values(index).rows(leaf, leaf + 1).reshaped({2})});
    joiner_.push(context);
  }
  trace("exchange-started", index);
  const std::string label = fmt::format("gradient of {}", trainee.name);
  if (!parts_.optimiser.sharded()) {
    work.gradient = parts_.group.start_sum(gradient, label);
    return;
  }
  work.gradient = parts_.group.start_scatter_sum(gradient.rows(0, layout.trainable_elements), label);
  work.statistics = parts_.group.start_sum(gradient.rows(layout.trainable_elements, layout.exchange_elements),
                                           fmt::format("statistics of {}", trainee.name));
}

void Trainer::update(std::size_t index, std::int64_t step, Work& work) {
  Context& context = parts_.environment.context;
  work.gradient->wait();
  if (work.statistics) work.statistics->wait();
  trace("exchange-joined", index);
  Trainee& trainee = parts_.trainees[index];
  if (exchanges()) parts_.optimiser.measure(context, parts_.store, index);
  if (parts_.optimiser.sharded()) join_square_sums(context, parts_.group, parts_.optimiser, index);
  work.update = parts_.optimiser.update(context, parts_.store, index, settings_, schedule_.at(step), step);
  work.value = joined_value(on_host<double>(context, values(index)));
  const Tensor counted = statistic_views(parts_.store.group(index), parts_.store.gradient(index))[kActiveCounts];
  const std::vector<float> counts = on_host<float>(context, counted);
  for (const float count : counts) work.active_pairs += count;
  if (!work.update.finite) {
    const auto [begin, end] = parts_.optimiser.part(index);
    work.bad_tensor = first_non_finite_parameter(index, parts_.store.gradient(index).rows(begin, end), begin);
    return;
  }
  trainee.count_activity(counts, parts_.options.train.batch_tokens);
  if (parts_.optimiser.sharded())
    work.masters = parts_.group.start_gather(parts_.store.master(index), fmt::format("weights of {}", trainee.name));
}

void Trainer::prepare(std::size_t index, Work& work) {
  if (!work.update.finite) return;
  if (work.masters) work.masters->wait();
  parts_.trainees[index].adapter->prepare(parts_.environment.context, parts_.store.master_views(index));
  trace("updated", index);
}

std::vector<double> Trainer::share(std::int64_t step, const std::vector<Work>& work) {
  // The first block has the most layers, so this many fields serve every rank.
  std::vector<double> mine(kRankFields + kFields * parts_.grid.layers_of_block(0).size(), 0.0);
  mine[kStopField] = parts_.environment.stop_requested() ? 1.0 : 0.0;
  for (std::size_t i = 0; i < work.size(); ++i) {
    double* fields = &mine[kRankFields + i * kFields];
    fields[kSquareError] = work[i].value.square_error;
    fields[kWeightedActivations] = work[i].value.weighted_activations;
    fields[kActivePairs] = work[i].active_pairs;
    fields[kGradientNorm] = work[i].update.gradient_norm;
    fields[kDeadShare] = parts_.trainees[i].dead_share(parts_.options.train.dead_after_tokens);
    fields[kBadTensor] = work[i].bad_tensor;
  }
  return parts_.environment.world.all_gather(mine, fmt::format("metrics of step {}", step + 1));
}

TraineeMetrics Trainer::combine(const std::vector<double>& shared, int block, std::size_t place,
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
  TraineeMetrics one;
  one.nmse = joined(kSquareError) / (tokens * loss.delta_scale * loss.delta_scale);
  one.loss = one.nmse + loss.sparsity_scale() * joined(kWeightedActivations);
  one.l0 = field(0, kActivePairs) / tokens;
  one.gradient_norm = field(0, kGradientNorm);
  one.dead_share = field(0, kDeadShare);
  return one;
}

/// Each rank says what it found in its part of the gradient.
int Trainer::bad_tensor(const std::vector<double>& shared, int block, std::size_t place) const {
  const std::size_t per_rank = shared.size() / static_cast<std::size_t>(parts_.grid.ranks());
  int first = -1;
  for (int index = 0; index < parts_.grid.data_parallel(); ++index) {
    const std::size_t of_rank = static_cast<std::size_t>(parts_.grid.rank_of(block, index)) * per_rank;
    const int found = static_cast<int>(shared[of_rank + kRankFields + place * kFields + kBadTensor]);
    if (found >= 0 && (first < 0 || found < first)) first = found;
  }
  return first;
}

/// Of numbers laid out as the trainee's parameters are from element `begin` on; or -1.
int Trainer::first_non_finite_parameter(std::size_t index, const Tensor& numbers, std::int64_t begin) {
  if (numbers.elements() == 0) return -1;
  const std::int64_t at = first_non_finite(parts_.environment.context, numbers);
  if (at < 0) return -1;
  const auto& spans = parts_.store.group(index).parameters;
  return static_cast<int>(std::ranges::upper_bound(spans, begin + at, {}, &ParameterGroup::Span::offset) -
                          spans.begin()) -
         1;
}

void Trainer::require_finite(const StepMetrics& metrics, const std::vector<int>& bad_tensors) const {
  for (std::size_t i = 0; i < metrics.trainees.size(); ++i) {
    const TraineeMetrics& one = metrics.trainees[i];
    if (std::isfinite(one.loss) && std::isfinite(one.gradient_norm)) continue;
    const std::string what =
        bad_tensors[i] < 0
            ? "the loss"
            : "the gradient of " + parts_.store.group(0).parameters.at(static_cast<std::size_t>(bad_tensors[i])).name;
    fail_non_finite(parts_.grid.layers()[i], what, metrics.step);
  }
}

/// A finite gradient does not make a finite update.
void Trainer::require_finite_state(std::int64_t step) {
  agree(parts_.environment.world, [&] {
    for (std::size_t i = 0; i < parts_.trainees.size(); ++i) {
      const std::int64_t begin = parts_.optimiser.part(i).begin;
      const std::tuple<const char*, Tensor, std::int64_t> states[] = {
          {"", parts_.store.master(i), 0},
          {"AdamW's first moment of ", parts_.optimiser.first_moment(i), begin},
          {"AdamW's second moment of ", parts_.optimiser.second_moment(i), begin}};
      for (const auto& [prefix, state, first_element] : states) {
        const int bad = first_non_finite_parameter(i, state, first_element);
        if (bad < 0) continue;
        const std::string& name = parts_.store.group(i).parameters[static_cast<std::size_t>(bad)].name;
        throw NonFiniteError("{}", non_finite_message(parts_.trainees[i].layer, prefix + name, step));
      }
    }
  });
}

/// On every rank: one rank says it.
void Trainer::fail_non_finite(int layer, const std::string& what, std::int64_t step) const {
  const std::string message = non_finite_message(layer, what, step);
  if (parts_.environment.world.rank() == 0) throw NonFiniteError("{}", message);
  throw PeerFailure(ExitCode::kNonFinite, message);
}

std::string Trainer::non_finite_message(int layer, const std::string& what, std::int64_t step) const {
  const std::int64_t end_sample = step * parts_.options.train.batch_tokens;
  return fmt::format("layer {}: {} is not finite at step {} (samples {} to {}); nothing of this step was saved", layer,
                     what, step, end_sample - parts_.options.train.batch_tokens, end_sample - 1);
}

void Trainer::evaluate(std::int64_t step) {
  const std::vector<HeldOutMetrics> metrics =
      parts_.held_out.evaluate(parts_.environment.context, pass_, parts_.trainees);
  for (std::size_t i = 0; i < metrics.size(); ++i)
    if (!std::isfinite(metrics[i].nmse)) fail_non_finite(parts_.grid.layers()[i], "the held-out error", step);
  if (parts_.log == nullptr || metrics.empty()) return;
  parts_.log->held_out(step, names_, metrics);
  HeldOutMetrics mean;
  for (const HeldOutMetrics& one : metrics) {
    mean.nmse += one.nmse / static_cast<double>(metrics.size());
    mean.l0 += one.l0 / static_cast<double>(metrics.size());
  }
  parts_.environment.print(fmt::format("step {}: held-out NMSE {:.4f}, L0 {:.2f}", step, mean.nmse, mean.l0));
}

std::string Trainer::save(std::int64_t step) {
  const auto start = std::chrono::steady_clock::now();
  parts_.environment.heartbeat(fmt::format("checkpoint of step {}", step));
  require_finite_state(step);
  try {
    const std::string path = parts_.checkpointer.save(step, parts_.trainees, parts_.store, parts_.optimiser);
    failed_saves_ = 0;
    checkpoint_seconds_ += seconds_since(start);
    return path;
  } catch (const Error& error) {
    // A save that ends the run must succeed; a periodic one may fail a few times, loudly.
    const bool final_save = stop_ || step == total_steps_;
    if (final_save || error.code() != ExitCode::kCannotWrite ||
        ++failed_saves_ > parts_.options.checkpoint.failures_allowed)
      throw;
    if (parts_.environment.world.rank() == 0)
      parts_.environment.print(fmt::format("WARNING: checkpoint of step {} failed ({} of {} allowed in a row): {}",
                                           step, failed_saves_, parts_.options.checkpoint.failures_allowed,
                                           error.what()));
    return {};
  }
}

void Trainer::log_step(const StepMetrics& metrics, ProgressReport& progress) {
  if (due(metrics.step, parts_.options.log.metrics_every_steps) || metrics.step == total_steps_)
    parts_.log->step(metrics);
  progress.update(metrics.step * parts_.options.train.batch_tokens, [&] {
    const TraineeMetrics mean = metrics.mean();
    return fmt::format("step {}, loss {:.4f}, NMSE {:.4f}, L0 {:.2f}, dead {:.1f} %", metrics.step, mean.loss,
                       mean.nmse, mean.l0, 100.0 * mean.dead_share);
  });
}

void Trainer::trace(const char* what, std::size_t index) const {
  if (parts_.trace) parts_.trace(what, parts_.trainees[index].name);
}

}  // namespace tadapt

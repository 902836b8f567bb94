#include "runtime/loss/bridging_pass.h"

#include <algorithm>
#include <memory>

#include "kernels/core/memory.h"
#include "kernels/losses.h"
#include "kernels/optim.h"
#include "kernels/pointwise.h"
#include "runtime/adapter/grown.h"

namespace tadapt {
namespace {

std::vector<float> labelled_rows(const TokenBatch& batch) {
  std::vector<float> labelled(batch.ids.size(), 1.0f);
  for (int sequence = 0; sequence < batch.sequences(); ++sequence) {
    const auto end = static_cast<std::size_t>(batch.offsets[static_cast<std::size_t>(sequence) + 1]);
    if (end > static_cast<std::size_t>(batch.offsets[static_cast<std::size_t>(sequence)])) labelled[end - 1] = 0.0f;
  }
  return labelled;
}

std::vector<std::int32_t> next_tokens(const TokenBatch& batch) {
  std::vector<std::int32_t> labels(batch.ids.begin(), batch.ids.end());
  if (!labels.empty()) std::ranges::rotate(labels, labels.begin() + 1);
  return labels;
}

double factor(double weight, std::int64_t count) {
  return weight / static_cast<double>(std::max<std::int64_t>(1, count));
}

}  // namespace

BatchCounts counts_of(const TokenBatch& batch) {
  BatchCounts counts{.tokens = batch.tokens(), .sequences = batch.sequences()};
  for (const float labelled : labelled_rows(batch)) counts.labels += labelled > 0.0f ? 1 : 0;
  return counts;
}

BridgingPass::BridgingPass(Context& context, const BridgingModels& models, const BridgingWeights& weights,
                           const BridgingMemory& memory)
    : models_(models),
      weights_(weights),
      limits_(memory),
      memory_(context.device()),
      head_(memory.logits_budget_bytes),
      nmse_(models.pair.config().layers + 1, weights.nmse_over_states),
      target_mlps_(static_cast<std::size_t>(models.pair.config().layers), MlpSource::kTarget) {
  memory_.arena.reserve(bytes(models.pair.config(), memory));
}

std::int64_t BridgingPass::bytes(const DecoderConfig& config, const BridgingMemory& memory) {
  const std::int64_t layers = config.layers, width = config.width, m = memory.cutoffs;
  const auto segment = [&](std::int64_t branches, Recording recording) {
    return RecordedSegment::bytes(config, recording, layers, branches * memory.leaf_tokens);
  };
  const auto rows = [&](std::int64_t branches) {
    return Arena::bytes(DType::kFloat32, {branches * memory.leaf_tokens, width});
  };
  const std::int64_t kept = (layers + 1 + m) * rows(1) + rows(m) + rows(1 + m);
  // Between cutoffs j and j + 1 of m there are j bridges of each kind beside the adapter model, behind the last one no
  // more than m and the adapter model at a time; where segments meet, both have the state.
  const std::int64_t most = std::max(1 + m, 2 * m - 1);
  const std::int64_t records = segment(most, memory.recording) + 2 * m * rows(most);
  const std::int64_t per_token =
      2 * Arena::bytes(DType::kFloat32, {memory.leaf_tokens}) + 2 * Arena::bytes(DType::kFloat64, {memory.leaf_tokens});
  const std::int64_t heads = (2 * m + 2) * per_token + Arena::bytes(DType::kInt32, {memory.leaf_tokens});
  return kept + std::max(records, segment(1, Recording::kNothing)) + heads;
}

SegmentPlan BridgingPass::plan(AdapterTape* adapters, int begin, int end, Recording recording) const {
  const bool adapter_model = adapters != nullptr;
  return {.decoder = adapter_model ? adapter_trunk() : models_.pair,
          .mlps = adapter_model ? adapter_mlps_ : target_mlps_,
          .trained = adapters,
          .begin = begin,
          .end = end,
          .recording = recording};
}

/// Everything of one leaf, in the order in which it happens.
struct BridgingPass::Run {
  Run(BridgingPass& of, Context& on, const Leaf& what)
      : pass(of),
        context(on),
        leaf(what),
        layers(of.models_.pair.config().layers),
        tokens(what.batch.tokens()),
        schedule(layers, of.models_.backbone(), what.cutoffs) {}

  using Segments = std::vector<std::unique_ptr<RecordedSegment>>;

  Tensor take(std::int64_t rows) { return pass.memory_.arena.take(DType::kFloat32, {rows, width()}); }
  std::int64_t width() const { return pass.models_.pair.config().width; }
  Tensor branch(const Tensor& tensor, int index) const { return tensor.rows(index * tokens, (index + 1) * tokens); }
  Tensor branches(const Tensor& tensor, int count) const { return tensor.rows(0, count * tokens); }
  int interior() const { return schedule.intervals() - 1; }  ///< cutoffs between the first layer and the last

  void run_target() {
    for (int state = 0; state <= layers; ++state) target_states.push_back(take(tokens));
    RecordedSegment target(context, pass.memory_, pass.plan(nullptr, 0, layers, Recording::kNothing), pass.tokens_, 1);
    pass.models_.pair.embed(context, pass.tokens_.of(1), target.input());
    target.forward([&](int state, const Tensor& values) {
      copy(context, values, target_states[static_cast<std::size_t>(state)]);
      pass.nmse_.observe_target(context, state, values);
    });
    pass.nmse_.ready(context, factor(pass.weights_.residual_nmse, leaf.whole.sequences));
  }

  /// Adapter model and r2a over an interval.
  void run_adapters(int interval, Recording recording, const RecordedSegment::OnState& on_state = {}) {
    const int begin = schedule.borders[static_cast<std::size_t>(interval)];
    const int count = schedule.adapter_branches(interval);
    const int before = interval == 0 ? 1 : schedule.adapter_branches(interval - 1);
    const SegmentPlan plan =
        pass.plan(&leaf.adapters, begin, schedule.borders[static_cast<std::size_t>(interval) + 1], recording);
    auto segment = std::make_unique<RecordedSegment>(context, pass.memory_, plan, pass.tokens_, count);
    const Tensor& input = segment->input();
    if (interval == 0)
      plan.decoder.embed(context, pass.tokens_.of(1), branch(input, 0));
    else
      copy(context, adapter_segments.back()->output(), branches(input, before));
    for (int index = before; index < count; ++index)
      copy(context, target_states[static_cast<std::size_t>(begin)], branch(input, index));
    segment->forward(on_state);
    adapter_segments.push_back(std::move(segment));
  }

  /// a2r over all intervals, forwards and backwards; leaves what it says of the adapter model's states.
  void run_a2r() {
    const int count = static_cast<int>(schedule.a2r.size());
    if (count == 0) return;
    Segments segments;
    for (int interval = 1; interval < schedule.intervals(); ++interval) {
      segments.push_back(std::make_unique<RecordedSegment>(
          context, pass.memory_,
          pass.plan(nullptr, schedule.borders[static_cast<std::size_t>(interval)],
                    schedule.borders[static_cast<std::size_t>(interval) + 1], pass.limits_.recording),
          pass.tokens_, interval));
      const Tensor& input = segments.back()->input();
      if (interval > 1) copy(context, segments[segments.size() - 2]->output(), branches(input, interval - 1));
      const RecordedSegment& adapters = *adapter_segments[static_cast<std::size_t>(interval) - 1];
      copy(context, branch(adapters.output(), 0), branch(input, interval - 1));
      segments.back()->forward({});
    }
    std::vector<HeadBranch> heads;
    for (int i = 0; i < count; ++i)
      heads.push_back(head(pass.models_.pair, branch(segments.back()->output(), i), branch(a2r_cotangent, i),
                           {.kl = pass.weights_.kl_bridge * schedule.a2r[static_cast<std::size_t>(i)].share}));
    head_losses(heads, a2r_kl);
    for (int interval = schedule.intervals() - 1; interval >= 1; --interval) {
      segments.back()->backward({.branches = {0, interval},
                                 .wanted = interval,
                                 .cotangent = branches(a2r_cotangent, interval),
                                 .on_state = {}});
      copy(context, branch(a2r_cotangent, interval - 1), a2r_cotangents[static_cast<std::size_t>(interval) - 1]);
      segments.pop_back();
    }
  }

  struct HeadWeights {
    double kl = 0.0;
    double label = 0.0;
  };
  HeadBranch head(const Decoder& decoder, const Tensor& residual, const Tensor& towards, HeadWeights weights) {
    HeadBranch one{.decoder = &decoder,
                   .residual = residual,
                   .kl_weights = row_weights(weights.kl),
                   .kl = pass.memory_.arena.take(DType::kFloat64, {tokens}),
                   .cotangent = towards};
    if (weights.label == 0.0) return one;
    one.label_weights = row_weights(weights.label);
    one.label_losses = pass.memory_.arena.take(DType::kFloat64, {tokens});
    return one;
  }
  /// The factor of each token in a mean over those that have a next one.
  Tensor row_weights(double weight) {
    std::vector<float> host = labelled_rows(leaf.batch);
    const auto each = static_cast<float>(factor(weight, leaf.whole.labels));
    for (float& row : host) row *= each;
    const Tensor there = pass.memory_.arena.take(DType::kFloat32, {tokens});
    upload(Tensor::of<float>(host, {tokens}), there);
    return there;
  }
  void upload(const Tensor& host, const Tensor& there) {
    copy(context, host, there);
    synchronize(context);
  }
  double total(const Tensor& rows) {
    double sum = 0.0;
    for (const double one : on_host<double>(context, rows)) sum += one;
    return sum;
  }
  void head_losses(std::span<const HeadBranch> heads, std::vector<double>& sums) {
    Tensor labels;
    if (!heads.empty() && !heads.front().label_weights.empty()) {
      labels = pass.memory_.arena.take(DType::kInt32, {tokens});
      std::vector<std::int32_t> next = next_tokens(leaf.batch);
      upload(Tensor::of<std::int32_t>(next, {tokens}), labels);
    }
    pass.head_.value_and_gradient(
        context, pass.memory_.workspace,
        {.target = pass.models_.pair, .target_residual = target_states.back(), .labels = labels}, heads);
    for (const HeadBranch& one : heads) sums.push_back(total(one.kl));
  }

  /// The adapter model's and r2a's losses, and their cotangents at the last state.
  void adapter_losses(BridgingValue& value) {
    const Tensor& last = adapter_segments.back()->output();
    const BridgingWeights& weights = pass.weights_;
    std::vector<HeadBranch> heads{
        head(pass.adapter_trunk(), branch(last, 0), branch(cotangent, 0),
             {.kl = weights.kl_adapter + weights.kl_bridge * (schedule.a2r_as_adapter + schedule.r2a_as_adapter),
              .label = weights.label})};
    for (std::size_t i = 0; i < schedule.r2a.size(); ++i)
      heads.push_back(head(pass.adapter_trunk(), branch(last, static_cast<int>(i) + 1),
                           branch(cotangent, static_cast<int>(i) + 1),
                           {.kl = weights.kl_bridge * schedule.r2a[i].share}));
    if (schedule.a2r_by_head > 0.0)
      heads.push_back(head(pass.models_.pair, branch(last, 0), branch(cotangent, 0),
                           {.kl = weights.kl_bridge * schedule.a2r_by_head}));
    std::vector<double> sums;
    head_losses(heads, sums);
    value.kl_adapter = sums[0];
    value.kl_a2r = schedule.a2r_as_adapter * sums[0];
    value.kl_r2a = schedule.r2a_as_adapter * sums[0];
    for (std::size_t i = 0; i < schedule.a2r.size(); ++i) value.kl_a2r += schedule.a2r[i].share * a2r_kl[i];
    for (std::size_t i = 0; i < schedule.r2a.size(); ++i) value.kl_r2a += schedule.r2a[i].share * sums[i + 1];
    if (schedule.a2r_by_head > 0.0) value.kl_a2r += schedule.a2r_by_head * sums.back();
    if (!heads[0].label_losses.empty()) value.label = total(heads[0].label_losses);
  }

  void adapter_backward() {
    const auto add_residual_error = [&](int state, const Tensor& values, const Tensor& towards) {
      pass.nmse_.add_cotangent(context, state, branch(values, 0), target_states[static_cast<std::size_t>(state)],
                               branch(towards, 0));
    };
    for (int interval = schedule.intervals() - 1; interval >= 0; --interval) {
      const int count = schedule.adapter_branches(interval);
      adapter_segments.back()->backward({.branches = {0, count},
                                         .wanted = interval == 0 ? 0 : schedule.adapter_branches(interval - 1),
                                         .cotangent = branches(cotangent, count),
                                         .on_state = add_residual_error});
      adapter_segments.pop_back();
      if (interval > 0) add_to(context, a2r_cotangents[static_cast<std::size_t>(interval) - 1], branch(cotangent, 0));
    }
  }

  /// Memory for cotangents, before any segment takes its own.
  void take_cotangents() {
    const auto bridges = static_cast<int>(schedule.a2r.size());
    cotangent = take((1 + static_cast<int>(schedule.r2a.size())) * tokens);
    clear(context, cotangent);
    for (int i = 0; i < bridges; ++i) a2r_cotangents.push_back(take(tokens));
    if (bridges == 0) return;
    a2r_cotangent = take(bridges * tokens);
    clear(context, a2r_cotangent);
  }

  BridgingPass& pass;
  Context& context;
  Leaf leaf;
  int layers;
  std::int64_t tokens;
  BridgingSchedule schedule;
  std::vector<Tensor> target_states, a2r_cotangents;
  std::vector<double> a2r_kl;
  Tensor cotangent;      ///< of the adapter model and r2a
  Tensor a2r_cotangent;  ///< of all a2r
  Segments adapter_segments;
};

void BridgingPass::begin(Context& context, const TokenBatch& batch, const AdapterTape& adapters, int branches) {
  adapter_mlps_.clear();
  for (int layer = 0; layer < models_.pair.config().layers; ++layer)
    adapter_mlps_.push_back(adapters.has(layer) ? MlpSource::kBase : MlpSource::kTarget);
  tokens_.place(context, batch, branches);
  nmse_.begin(context, batch);
}

BridgingValue BridgingPass::value_and_gradient(Context& context, const Leaf& leaf) {
  const std::int64_t mark = memory_.arena.mark();
  Run run(*this, context, leaf);
  begin(context, leaf.batch, leaf.adapters, 1 + static_cast<int>(run.schedule.r2a.size()));
  const Tensor weighted =
      grown(context, weighted_activations_, DType::kFloat64, 1, std::max<std::int64_t>(1, leaf.adapters.size()));
  leaf.adapters.begin({.sparsity = static_cast<float>(factor(leaf.sparsity, leaf.whole.tokens)),
                       .slot = leaf.gradients.slot,
                       .filled = leaf.gradients.filled,
                       .weighted_activations = weighted.reshaped({weighted.elements()})});

  BridgingValue value;
  run.take_cotangents();
  run.run_target();
  for (int interval = 0; interval < run.interior(); ++interval) run.run_adapters(interval, limits_.recording);
  run.run_a2r();
  run.run_adapters(run.interior(), limits_.recording);
  run.adapter_losses(value);
  run.adapter_backward();
  value.residual_nmse = nmse_.value(context);
  value.weighted_activations = on_host<double>(context, weighted);
  memory_.arena.release(mark);
  return value;
}

BridgingPass::Leaf BridgingPass::forwards_only(const TokenBatch& batch, std::span<const int> cutoffs,
                                               AdapterTape& adapters) {
  return {.batch = batch,
          .cutoffs = cutoffs,
          .whole = counts_of(batch),
          .sparsity = 0.0,
          .adapters = adapters,
          .gradients = {}};
}

std::string BridgingPass::first_non_finite(Context& context, const TokenBatch& batch, AdapterTape& adapters) {
  const std::int64_t mark = memory_.arena.mark();
  const std::vector<int> cutoffs{0};
  const Leaf leaf = forwards_only(batch, cutoffs, adapters);
  Run run(*this, context, leaf);
  begin(context, batch, adapters, 1);
  std::string found;
  const auto look = [&](int state, const Tensor& values, const char* whose) {
    if (!found.empty() || tadapt::first_non_finite(context, values.reshaped({values.elements()})) < 0) return;
    found = state == 0 ? fmt::format("embeddings: {} residual state", whose)
                       : fmt::format("layer {}: {} residual state", state - 1, whose);
  };
  run.run_target();
  for (int state = 0; state <= run.layers; ++state)
    look(state, run.target_states[static_cast<std::size_t>(state)], "the target's");
  run.run_adapters(0, Recording::kNothing,
                   [&](int state, const Tensor& values) { look(state, values, "the adapter model's"); });
  run.adapter_segments.clear();
  memory_.arena.release(mark);
  return found;
}

BridgingValue BridgingPass::evaluate(Context& context, const TokenBatch& batch, AdapterTape& adapters) {
  const std::int64_t mark = memory_.arena.mark();
  const std::vector<int> cutoffs{0};
  Run run(*this, context, forwards_only(batch, cutoffs, adapters));
  begin(context, batch, adapters, 1);
  BridgingValue value;
  run.take_cotangents();
  run.run_target();
  run.run_adapters(0, Recording::kNothing);
  std::vector<double> sums;
  const std::vector<HeadBranch> heads{
      run.head(adapter_trunk(), run.adapter_segments.back()->output(), run.cotangent, {.kl = 1.0})};
  run.head_losses(heads, sums);
  value.kl_adapter = sums[0];
  run.adapter_segments.clear();
  memory_.arena.release(mark);
  return value;
}

}  // namespace tadapt

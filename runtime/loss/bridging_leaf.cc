#include "runtime/loss/bridging_leaf.h"

#include <algorithm>

#include "kernels/core/memory.h"
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

BridgingLeaf::BridgingLeaf(const BridgingMachine& machine, LeafMemory& memory, const BridgingWork& work)
    : machine_(machine),
      memory_(memory),
      work_(work),
      schedule_(machine.models.pair.config().layers, machine.models.backbone(), work.cutoffs),
      tokens_(work.batch.tokens()),
      mark_(memory.arena.mark()),
      pass_memory_{machine.workspace, memory.arena, machine.layer_passes} {
  Context& context = machine_.context;
  for (int interval = 0; interval < schedule_.intervals(); ++interval) {
    const int begin = std::max(border(interval), layers().begin);
    const int end = std::min(border(interval + 1), layers().end);
    if (begin < end) pieces_.push_back({interval, begin, end});
  }
  memory_.tokens.place(context, work.batch,
                       std::max({1, adapter_branches(last_interval()), a2r_branches(last_interval())}));
  memory_.nmse.begin(context, work.batch);
  weighted_activations_ =
      grown(context, memory_.weighted_activations, DType::kFloat64, 1, std::max<std::int64_t>(1, work.adapters.size()));
  clear(context, weighted_activations_);
  work.adapters.begin({.sparsity = static_cast<float>(factor(work.sparsity, work.whole.tokens)),
                       .slot = work.gradients.slot,
                       .filled = work.gradients.filled,
                       .weighted_activations = weighted_activations_.reshaped({weighted_activations_.elements()})});
  take_cotangents();
}

BridgingLeaf::~BridgingLeaf() {
  // Records lie on a stack: the last made goes first.
  while (!a2r_segments_.empty()) a2r_segments_.pop_back();
  while (!adapter_segments_.empty()) adapter_segments_.pop_back();
  memory_.arena.release(mark_);
}

Tensor BridgingLeaf::take(int branches) {
  return memory_.arena.take(DType::kFloat32, {branches * tokens_, machine_.models.pair.config().width});
}

int BridgingLeaf::adapter_branches(int interval) const {
  return first_r2a() + (machine_.part.runs_target() ? schedule_.r2a_branches(interval) : 0);
}

/// Memory for cotangents and for what comes in, before any segment takes its own.
void BridgingLeaf::take_cotangents() {
  const int bridges = a2r_branches(last_interval());
  cotangent_ = take(adapter_branches(last_interval()));
  clear(machine_.context, cotangent_);
  if (!first_stage()) entering_ = take(adapter_branches(interval_before(layers().begin)));
  for (int i = 0; i < bridges; ++i) a2r_cotangents_.push_back(take(1));
  a2r_cotangent_ = take(bridges);
  clear(machine_.context, a2r_cotangent_);
}

/// The interval whose layers give the state that enters `layer`.
int BridgingLeaf::interval_before(int layer) const {
  int interval = 0;
  while (border(interval + 1) < layer) ++interval;
  return interval;
}

SegmentPlan BridgingLeaf::plan(AdapterTape* adapters, const Piece& piece, Recording recording) const {
  const bool adapter_model = adapters != nullptr;
  return {.decoder = adapter_model ? machine_.models.adapter_trunk() : machine_.models.pair,
          .mlps = adapter_model ? machine_.adapter_mlps : machine_.target_mlps,
          .trained = adapters,
          .first_branch = 1 - first_r2a(),
          .begin = piece.begin,
          .end = piece.end,
          .recording = recording};
}

void BridgingLeaf::send(const Tensor& values, Neighbour to) {
  if (values.elements() > 0) machine_.link->send(values, to);
}

void BridgingLeaf::receive(const Tensor& values, Neighbour from) {
  if (values.elements() > 0) machine_.link->receive(values, from);
}

void BridgingLeaf::forward() {
  for (int state = layers().begin; state <= layers().end; ++state) target_states_.push_back(take(1));
  if (machine_.part.runs_target()) {
    run_target();
    share_target();
  }
  if (!first_stage() && interval_before(layers().begin) < last_interval()) receive_adapter_states();
  for (const Piece& piece : pieces_)
    if (piece.interval < last_interval()) run_adapters(piece, {});
}

void BridgingLeaf::run_target() {
  const auto [begin, end] = layers();
  RecordedSegment target(machine_.context, pass_memory_, plan(nullptr, {0, begin, end}, Recording::kNothing),
                         memory_.tokens, 1);
  if (first_stage())
    machine_.models.pair.embed(machine_.context, memory_.tokens.of(1), target.input());
  else
    receive(target.input(), Neighbour::kBefore);
  target.forward([&](int state, const Tensor& values) { copy(machine_.context, values, target_state(state)); });
  if (!last_stage()) send(target.output(), Neighbour::kBehind);
}

/// The target's states come to the rank that compares the adapter model's with them.
void BridgingLeaf::share_target() {
  if (target_shared_) return;
  target_shared_ = true;
  for (const Tensor& state : target_states_) {
    if (machine_.part.side == BranchSide::kTarget) send(state, Neighbour::kOtherSide);
    if (machine_.part.side == BranchSide::kAdapter) receive(state, Neighbour::kOtherSide);
  }
  if (!machine_.part.runs_adapter()) return;
  const auto [begin, end] = layers();
  // The state that comes in is the business of the layers before.
  for (int state = first_stage() ? begin : begin + 1; state <= end; ++state)
    memory_.nmse.observe_target(machine_.context, state, target_state(state));
  memory_.nmse.ready(machine_.context, factor(machine_.weights.residual_nmse, work_.whole.sequences));
}

void BridgingLeaf::receive_adapter_states() { receive(entering_, Neighbour::kBefore); }

/// Adapter model and r2a over a piece; r2a that leave the target at its first layer join there.
void BridgingLeaf::run_adapters(const Piece& piece, const RecordedSegment::OnState& on_state) {
  Context& context = machine_.context;
  const int count = adapter_branches(piece.interval);
  if (count == 0) return;
  const SegmentPlan planned = plan(&work_.adapters, piece, on_state ? Recording::kNothing : machine_.recording);
  auto segment = std::make_unique<RecordedSegment>(context, pass_memory_, planned, memory_.tokens, count);
  const Tensor& input = segment->input();
  const int before = piece.begin == 0 ? first_r2a() : adapter_branches(interval_before(piece.begin));
  if (before > 0) {
    if (piece.begin == 0)
      planned.decoder.embed(context, memory_.tokens.of(1), branch(input, 0));
    else
      copy(context, piece.begin == layers().begin ? entering_ : adapter_segments_.back()->output(),
           branches(input, before));
  }
  for (int index = before; index < count; ++index) copy(context, target_state(piece.begin), branch(input, index));
  segment->forward(on_state);
  if (piece.end == layers().end && !last_stage()) send(segment->output(), Neighbour::kBehind);
  adapter_segments_.push_back(std::move(segment));
}

void BridgingLeaf::forward_a2r() {
  for (const Piece& piece : pieces_)
    if (a2r_branches(piece.interval) > 0) run_a2r(piece);
  share_target();
  if (!last_stage()) return;
  std::vector<HeadBranch> heads;
  for (int i = 0; i < a2r_branches(last_interval()); ++i)
    heads.push_back(head(machine_.models.pair, branch(a2r_segments_.back()->output(), i), branch(a2r_cotangent_, i),
                         {.kl = machine_.weights.kl_bridge * schedule_.a2r[at(i)].share}));
  a2r_kl_ = head_losses(heads);
}

/// a2r over a piece; the one that leaves the adapter model at its first layer joins there.
void BridgingLeaf::run_a2r(const Piece& piece) {
  Context& context = machine_.context;
  const int count = a2r_branches(piece.interval);
  auto segment = std::make_unique<RecordedSegment>(context, pass_memory_, plan(nullptr, piece, machine_.recording),
                                                   memory_.tokens, count);
  const Tensor& input = segment->input();
  const int before = a2r_branches(interval_before(piece.begin));
  const bool enters = piece.begin == layers().begin;
  if (enters && !first_stage())
    receive(branches(input, before), Neighbour::kBefore);
  else if (before > 0)
    copy(context, a2r_segments_.back()->output(), branches(input, before));
  if (begins_interval(piece)) {
    // The adapter model's segments that are there end at the last cutoff at the latest.
    const auto ends_here = [&](const auto& one) { return one->end() == piece.begin; };
    const auto found = std::ranges::find_if(adapter_segments_, ends_here);
    const Tensor& state = enters && !first_stage() ? entering_ : (*found)->output();
    copy(context, branch(state, 0), branch(input, count - 1));
  }
  segment->forward({});
  if (piece.end == layers().end && !last_stage()) send(segment->output(), Neighbour::kBehind);
  a2r_segments_.push_back(std::move(segment));
}

void BridgingLeaf::backward_a2r() {
  if (!last_stage()) receive(branches(a2r_cotangent_, a2r_branches(interval_before(layers().end))), Neighbour::kBehind);
  for (auto piece = pieces_.rbegin(); piece != pieces_.rend(); ++piece) {
    const int count = a2r_branches(piece->interval);
    if (count == 0) continue;
    a2r_segments_.back()->backward(
        {.branches = {0, count}, .wanted = count, .cotangent = branches(a2r_cotangent_, count), .on_state = {}});
    a2r_segments_.pop_back();
    if (begins_interval(*piece))
      copy(machine_.context, branch(a2r_cotangent_, count - 1), a2r_cotangents_[at(count - 1)]);
  }
  if (!first_stage()) send(branches(a2r_cotangent_, a2r_branches(interval_before(layers().begin))), Neighbour::kBefore);
}

void BridgingLeaf::forward_rest(const RecordedSegment::OnState& on_state) {
  share_target();
  if (!first_stage() && interval_before(layers().begin) == last_interval()) receive_adapter_states();
  for (const Piece& piece : pieces_)
    if (piece.interval == last_interval()) run_adapters(piece, on_state);
  if (last_stage()) adapter_losses();
}

void BridgingLeaf::backward() {
  if (!last_stage()) receive(branches(cotangent_, adapter_branches(interval_before(layers().end))), Neighbour::kBehind);
  const RecordedSegment::OnCotangent add_residual_error = [&](int state, const Tensor& values, const Tensor& towards) {
    if (!machine_.part.runs_adapter()) return;
    memory_.nmse.add_cotangent(machine_.context, state, branch(values, 0), target_state(state), branch(towards, 0));
  };
  for (auto piece = pieces_.rbegin(); piece != pieces_.rend(); ++piece) {
    const int count = adapter_branches(piece->interval);
    if (count == 0) continue;
    const int wanted = piece->begin == 0 ? 0 : adapter_branches(interval_before(piece->begin));
    adapter_segments_.back()->backward({.branches = {0, count},
                                        .wanted = wanted,
                                        .cotangent = branches(cotangent_, count),
                                        .on_state = add_residual_error});
    adapter_segments_.pop_back();
    if (begins_interval(*piece) && a2r_branches(piece->interval) > 0)
      add_to(machine_.context, a2r_cotangents_[at(a2r_branches(piece->interval) - 1)], branch(cotangent_, 0));
  }
  if (!first_stage()) send(branches(cotangent_, adapter_branches(interval_before(layers().begin))), Neighbour::kBefore);
  work_.adapters.finish(machine_.context);
}

BridgingValue BridgingLeaf::value() {
  BridgingValue value;
  // Each sum over bridges apart, so that it has the same bits wherever the adapter model's own share is.
  for (std::size_t i = 0; i < a2r_kl_.size(); ++i) value.kl_a2r += schedule_.a2r[i].share * a2r_kl_[i];
  for (std::size_t i = 0; i < r2a_kl_.size(); ++i) value.kl_r2a += schedule_.r2a[i].share * r2a_kl_[i];
  value.kl_adapter = adapter_kl_;
  value.kl_a2r += schedule_.a2r_as_adapter * adapter_kl_ + schedule_.a2r_by_head * adapter_kl_by_target_head_;
  value.kl_r2a += schedule_.r2a_as_adapter * adapter_kl_;
  value.label = label_;
  value.residual_nmse.assign(schedule_.borders.back() + 1, 0.0);
  if (machine_.part.runs_adapter()) value.residual_nmse = memory_.nmse.by_state(machine_.context);
  value.weighted_activations = on_host<double>(machine_.context, weighted_activations_);
  return value;
}

/// Those of the adapter model and r2a, and their cotangents at the last state.
void BridgingLeaf::adapter_losses() {
  if (adapter_segments_.empty()) return;  // the target alone, with no r2a beside
  const Tensor& last = adapter_segments_.back()->output();
  const BridgingWeights& weights = machine_.weights;
  std::vector<HeadBranch> heads;
  if (machine_.part.runs_adapter())
    heads.push_back(
        head(machine_.models.adapter_trunk(), branch(last, 0), branch(cotangent_, 0),
             {.kl = weights.kl_adapter + weights.kl_bridge * (schedule_.a2r_as_adapter + schedule_.r2a_as_adapter),
              .label = weights.label}));
  for (int i = 0; first_r2a() + i < adapter_branches(last_interval()); ++i)
    heads.push_back(head(machine_.models.adapter_trunk(), branch(last, first_r2a() + i),
                         branch(cotangent_, first_r2a() + i), {.kl = weights.kl_bridge * schedule_.r2a[at(i)].share}));
  const bool by_target_head = machine_.part.runs_adapter() && schedule_.a2r_by_head > 0.0;
  if (by_target_head)
    heads.push_back(head(machine_.models.pair, branch(last, 0), branch(cotangent_, 0),
                         {.kl = weights.kl_bridge * schedule_.a2r_by_head}));
  std::vector<double> sums = head_losses(heads);
  if (by_target_head) {
    adapter_kl_by_target_head_ = sums.back();
    sums.pop_back();
  }
  if (machine_.part.runs_adapter()) {
    adapter_kl_ = sums.front();
    if (!heads.front().label_losses.empty()) label_ = total(heads.front().label_losses);
  }
  r2a_kl_.assign(sums.begin() + first_r2a(), sums.end());
}

HeadBranch BridgingLeaf::head(const Decoder& decoder, const Tensor& residual, const Tensor& towards,
                              HeadWeights weights) {
  HeadBranch one{.decoder = &decoder,
                 .residual = residual,
                 .kl_weights = row_weights(weights.kl == 0.0 ? 1.0 : weights.kl),
                 .kl = memory_.arena.take(DType::kFloat64, {tokens_}),
                 .cotangent = towards,
                 .kl_use = weights.kl == 0.0 ? KlUse::kFigure : KlUse::kLoss};
  if (weights.label == 0.0) return one;
  one.label_weights = row_weights(weights.label);
  one.label_losses = memory_.arena.take(DType::kFloat64, {tokens_});
  return one;
}

/// The factor of each token in a mean over those that have a next one.
Tensor BridgingLeaf::row_weights(double weight) {
  std::vector<float> host = labelled_rows(work_.batch);
  const auto each = static_cast<float>(factor(weight, work_.whole.labels));
  for (float& row : host) row *= each;
  const Tensor there = memory_.arena.take(DType::kFloat32, {tokens_});
  upload(Tensor::of<float>(host, {tokens_}), there);
  return there;
}

void BridgingLeaf::upload(const Tensor& host, const Tensor& there) {
  copy(machine_.context, host, there);
  synchronize(machine_.context);
}

double BridgingLeaf::total(const Tensor& rows) {
  double sum = 0.0;
  for (const double one : on_host<double>(machine_.context, rows)) sum += one;
  return sum;
}

std::vector<double> BridgingLeaf::head_losses(std::span<const HeadBranch> heads) {
  std::vector<double> sums;
  if (heads.empty()) return sums;
  Tensor labels;
  if (!heads.front().label_weights.empty()) {
    labels = memory_.arena.take(DType::kInt32, {tokens_});
    std::vector<std::int32_t> next = next_tokens(work_.batch);
    upload(Tensor::of<std::int32_t>(next, {tokens_}), labels);
  }
  machine_.head.value_and_gradient(
      machine_.context, machine_.workspace,
      {.target = machine_.models.pair, .target_residual = target_state(layers().end), .labels = labels}, heads);
  for (const HeadBranch& one : heads) sums.push_back(total(one.kl));
  return sums;
}

std::int64_t BridgingLeaf::bytes(const DecoderConfig& config, const BridgingMemory& memory, const BridgingPart& part) {
  const std::int64_t m = memory.cutoffs, count = part.layers.count();
  const std::int64_t a2r = part.runs_adapter() ? m : 0;
  const std::int64_t adapters = (part.runs_adapter() ? 1 : 0) + (part.runs_target() ? m : 0);
  const auto segment = [&](std::int64_t branches, Recording recording) {
    return RecordedSegment::bytes(config, recording, count, branches * memory.leaf_tokens);
  };
  const auto rows = [&](std::int64_t branches) {
    return Arena::bytes(DType::kFloat32, {branches * memory.leaf_tokens, config.width});
  };
  const std::int64_t kept = (count + 1 + a2r) * rows(1) + rows(a2r) + 2 * rows(adapters);
  // Between cutoffs j and j + 1 of m there are j bridges of each kind beside the adapter model, behind the last one a2r
  // goes before the others come; where segments meet, both have the state.
  const std::int64_t before_last = adapters + a2r - (part.side == BranchSide::kBoth ? 2 : 1);
  const std::int64_t most = std::max({adapters, a2r, before_last});
  const std::int64_t records = segment(most, memory.recording) + 2 * m * rows(most);
  const std::int64_t per_token =
      2 * Arena::bytes(DType::kFloat32, {memory.leaf_tokens}) + 2 * Arena::bytes(DType::kFloat64, {memory.leaf_tokens});
  const std::int64_t heads = (2 * m + 2) * per_token + Arena::bytes(DType::kInt32, {memory.leaf_tokens});
  return kept + std::max(records, segment(1, Recording::kNothing)) + heads;
}

}  // namespace tadapt

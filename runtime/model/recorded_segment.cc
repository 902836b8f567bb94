#include "runtime/model/recorded_segment.h"

#include <algorithm>

#include "kernels/pointwise.h"

namespace tadapt {

RecordedSegment::RecordedSegment(Context& context, const PassMemory& memory, const SegmentPlan& plan,
                                 const BranchTokens& tokens, int branches)
    : context_(context),
      memory_(memory),
      plan_(plan),
      tokens_(tokens),
      branches_(branches),
      mark_(memory.arena.mark()) {
  const DecoderConfig& config = plan.decoder.config();
  require_shape(0 <= plan.begin && plan.begin <= plan.end && plan.end <= config.layers,
                "segment: layers [{}, {}) of {}", plan.begin, plan.end, config.layers);
  require_shape(plan.mlps.size() == static_cast<std::size_t>(config.layers), "segment: MLPs of {} layers, model {}",
                plan.mlps.size(), config.layers);
  const bool records = plan.recording != Recording::kNothing;
  const int layers = plan.end - plan.begin;
  for (int i = 0; i < (records ? layers + 1 : 2); ++i)
    states_.push_back(memory_.arena.take(DType::kFloat32, {row_count(), config.width}));
  for (int i = 0; i < (records ? layers : std::min(layers, 1)); ++i) layers_.push_back(take_layer());
}

RecordedSegment::Layer RecordedSegment::take_layer() {
  const DecoderConfig& config = plan_.decoder.config();
  const auto take = [&](std::int64_t width) { return memory_.arena.take(DType::kFloat32, {row_count(), width}); };
  const bool records = plan_.recording != Recording::kNothing;
  const bool hidden = plan_.recording == Recording::kAll;
  Layer layer;
  layer.attention = {.query = take(config.query_width()),
                     .key = take(config.key_width()),
                     .value = take(config.key_width()),
                     .attended = take(config.query_width()),
                     .log_sums = records ? take(config.heads) : Tensor()};
  layer.middle = take(config.width);
  if (hidden) layer.mlp = {.gate = take(config.mlp_width), .up = take(config.mlp_width)};
  return layer;
}

std::int64_t RecordedSegment::bytes(const DecoderConfig& config, Recording recording, std::int64_t layers,
                                    std::int64_t rows) {
  const auto of = [&](std::int64_t width) { return Arena::bytes(DType::kFloat32, {rows, width}); };
  const bool records = recording != Recording::kNothing;
  std::int64_t layer = 2 * of(config.query_width()) + 2 * of(config.key_width()) + of(config.width);
  if (records) layer += of(config.heads);
  if (recording == Recording::kAll) layer += 2 * of(config.mlp_width);
  return records ? (layers + 1) * of(config.width) + layers * layer
                 : 2 * of(config.width) + std::min<std::int64_t>(layers, 1) * layer;
}

const Tensor& RecordedSegment::state(int layer) const {
  return states_[static_cast<std::size_t>(layer - plan_.begin) % states_.size()];
}

Tensor RecordedSegment::rows(const Tensor& tensor, Branches branches) const {
  return tensor.empty() ? tensor : tensor.rows(branches.first * tokens_.tokens(), branches.last * tokens_.tokens());
}

void RecordedSegment::forward(const OnState& on_state) {
  for (int layer = plan_.begin; layer < plan_.end; ++layer) {
    if (on_state) on_state(layer, state(layer));
    forward_layer(layer);
  }
  if (on_state) on_state(plan_.end, output());
}

void RecordedSegment::forward_layer(int layer) {
  const Layer& record = layers_[static_cast<std::size_t>(layer - plan_.begin) % layers_.size()];
  const Tensor& before = state(layer);
  const Tensor& after = state(layer + 1);
  memory_.layer_passes += branches_;
  const TokenTensors tokens = tokens_.of(branches_);
  plan_.decoder.attention(context_, memory_.workspace, {layer, tokens, before, record.attention}, record.middle);
  add_to(context_, before, record.middle);
  const Tensor mlp_in = memory_.workspace.of(Workspace::kNormed, before.shape());
  plan_.decoder.mlp_input(context_, layer, record.middle, mlp_in);
  plan_.decoder.mlp(context_, memory_.workspace,
                    {layer, plan_.mlps[static_cast<std::size_t>(layer)], mlp_in, record.mlp}, after);
  if (trains(layer)) {
    for (int branch = 0; branch < branches_; ++branch)
      plan_.trained->record_output(context_, {layer, plan_.first_branch + branch}, rows(mlp_in, {branch, branch + 1}),
                                   rows(after, {branch, branch + 1}));
  }
  add_to(context_, record.middle, after);
}

void RecordedSegment::backward(const Backward& work) {
  require_shape(plan_.recording != Recording::kNothing, "segment: a backward of what was not recorded");
  const int count = work.branches.last - work.branches.first;
  const auto visit = [&](int layer) {
    if (work.on_state) work.on_state(layer, rows(state(layer), work.branches), work.cotangent);
  };
  for (int layer = plan_.end - 1; layer >= plan_.begin; --layer) {
    visit(layer + 1);
    backward_layer(layer, work, layer == plan_.begin ? work.wanted : count);
  }
  if (plan_.begin == 0) visit(0);
}

void RecordedSegment::backward_layer(int layer, const Backward& work, int wanted) {
  const Layer& record = layers_[static_cast<std::size_t>(layer - plan_.begin)];
  const Branches going_on{work.branches.first, work.branches.first + wanted};
  const std::int64_t going_on_rows = wanted * tokens_.tokens();
  memory_.layer_passes += work.branches.last - work.branches.first;
  Workspace& workspace = memory_.workspace;
  const Tensor middle = rows(record.middle, work.branches);
  const Tensor mlp_in = workspace.of(Workspace::kNormed, middle.shape());
  const Tensor mlp_in_cotangent = workspace.of(Workspace::kNormedCotangent, middle.shape());
  const Tensor cotangent = work.cotangent.rows(0, going_on_rows);
  plan_.decoder.mlp_input(context_, layer, middle, mlp_in);
  if (wanted > 0) {
    const MlpRecord hidden{rows(record.mlp.gate, going_on), rows(record.mlp.up, going_on)};
    plan_.decoder.mlp_backward(
        context_, workspace,
        {layer, plan_.mlps[static_cast<std::size_t>(layer)], mlp_in.rows(0, going_on_rows), hidden},
        plan_.linearisation, cotangent, mlp_in_cotangent.rows(0, going_on_rows));
  }
  if (trains(layer)) {
    for (int branch = work.branches.last - 1; branch >= work.branches.first; --branch) {
      const int place = branch - work.branches.first;
      const Branches one{place, place + 1};
      plan_.trained->backward(context_, {layer, plan_.first_branch + branch}, rows(mlp_in, one),
                              rows(work.cotangent, one), place < wanted ? rows(mlp_in_cotangent, one) : Tensor());
    }
  }
  if (wanted == 0) return;
  plan_.decoder.add_mlp_input_cotangent(context_, layer, middle.rows(0, going_on_rows), plan_.linearisation,
                                        mlp_in_cotangent.rows(0, going_on_rows), cotangent);
  const AttentionRecord attention{.query = rows(record.attention.query, going_on),
                                  .key = rows(record.attention.key, going_on),
                                  .value = rows(record.attention.value, going_on),
                                  .attended = rows(record.attention.attended, going_on),
                                  .log_sums = rows(record.attention.log_sums, going_on)};
  plan_.decoder.add_attention_cotangent(context_, workspace,
                                        {layer, tokens_.of(wanted), rows(state(layer), going_on), attention},
                                        plan_.linearisation, cotangent);
}

}  // namespace tadapt

#include "runtime/capture/row_pass.h"

#include <algorithm>

#include "kernels/core/memory.h"
#include "kernels/pointwise.h"
#include "runtime/adapter/grown.h"

namespace tadapt {

RowPass::RowPass(Context& context, const Decoder& pair, const CapturePlan& plan, std::int64_t most_rows)
    : context_(context),
      pair_(pair),
      plan_(plan),
      runner_(context, pair),
      base_workspace_(context.device()),
      transfer_(context) {
  const Shape shape{most_rows, plan.format.width};
  for (std::size_t i = 0; i < plan.format.layers.size(); ++i) {
    mlp_in_.push_back(Buffer::pinned(context.device(), DType::kFloat32, shape));
    mlp_delta_.push_back(Buffer::pinned(context.device(), DType::kFloat32, shape));
  }
}

void RowPass::begin(std::vector<SequenceRows> parts) {
  parts_ = std::move(parts);
  next_ = 0;
  ids_.clear();
  positions_.clear();
  sequences_.clear();
}

/// No token behind the last row is run, since attention is causal.
void RowPass::add_rows(const TokenSource& tokens, const SequenceRows& part, Batch& batch) {
  if (part.begin == part.end) return;
  const CapturePlan::Sequence& planned = plan_.sequences[static_cast<std::size_t>(part.sequence)];
  const std::span<const std::int32_t> ids = tokens(part.sequence);
  const auto length = static_cast<std::int64_t>(ids.size());
  const std::vector<std::int32_t> positions = plan_.positions(part.sequence, length);
  if (positions.empty() || positions.back() + 1 != planned.tokens || planned.tokens > length) {
    throw DataError("sequence {} of the corpus has {} tokens, not what was planned for", part.sequence, length);
  }
  const auto first_row = static_cast<std::int32_t>(batch.tokens.tokens());
  const auto wanted = std::span(positions).subspan(static_cast<std::size_t>(part.begin),
                                                   static_cast<std::size_t>(part.end - part.begin));
  for (const std::int32_t position : wanted) {
    batch.kept.push_back(first_row + position);
    ids_.push_back(ids[static_cast<std::size_t>(position)]);
    positions_.push_back(position);
    sequences_.push_back(part.sequence);
  }
  batch.tokens.append(ids.first(static_cast<std::size_t>(wanted.back()) + 1));
  batch.sequences.push_back(part.sequence);
}

RowPass::Batch RowPass::next_batch(const TokenSource& tokens, std::int64_t batch_tokens) {
  Batch batch;
  for (; !done(); ++next_) {
    const SequenceRows& part = parts_[next_];
    const std::int64_t most = plan_.sequences[static_cast<std::size_t>(part.sequence)].tokens;
    if (batch.tokens.tokens() > 0 && batch.tokens.tokens() + most > batch_tokens) break;
    add_rows(tokens, part, batch);
  }
  return batch;
}

/// Rows of one batch that are looked at: x and the target's output of each layer run, Δ of each layer kept.
std::int64_t RowPass::rows_to_check(const Batch& batch) const {
  const auto& layers = plan_.format.layers;
  return 2 * (layers.back() + 1) * batch.tokens.tokens() +
         static_cast<std::int64_t>(layers.size()) * batch.rows.size(0);
}

void RowPass::check(Batch& batch, int layer, Checked::What what, const Tensor& values) {
  finite_.add(context_, values);
  batch.checked.push_back({layer, what});
}

void RowPass::require_finite(const Batch& batch) const {
  const auto bad = finite_.first_bad(context_);
  if (!bad) return;
  const auto& [layer, what] = batch.checked[bad->set];
  const std::int64_t row = what == Checked::kDelta ? batch.kept[static_cast<std::size_t>(bad->row)] : bad->row;
  const auto& offsets = batch.tokens.offsets;
  const auto after = std::upper_bound(offsets.begin(), offsets.end(), row);
  const auto index = static_cast<std::size_t>(after - offsets.begin() - 1);
  constexpr const char* kNames[] = {"mlp_in", "mlp_out of the target", "mlp_out of the base"};
  throw NonFiniteError("capture: layer {}: {} is not finite at position {} of sequence {}", layer, kNames[what],
                       row - offsets[index], batch.sequences[index]);
}

void RowPass::observe(Batch& batch, const Reading& reading) {
  if (reading.point != ReadPoint::kMlpIn && reading.point != ReadPoint::kMlpOut) return;
  const bool is_input = reading.point == ReadPoint::kMlpIn;
  check(batch, reading.layer, is_input ? Checked::kInput : Checked::kTargetOutput, reading.values);
  const auto& layers = plan_.format.layers;
  const auto found = std::lower_bound(layers.begin(), layers.end(), reading.layer);
  if (found == layers.end() || *found != reading.layer) return;
  const auto& all = is_input ? mlp_in_ : mlp_delta_;
  const auto end = static_cast<std::int64_t>(ids_.size());
  const Tensor place =
      all[static_cast<std::size_t>(found - layers.begin())].tensor().rows(end - batch.rows.size(0), end);
  const Tensor made = transfer_.begin(place);
  embed(context_, batch.rows, reading.values, made);  // the rows kept
  if (is_input)
    batch.x = made;
  else
    subtract_base(batch, reading.layer, made);
  transfer_.send();
}

void RowPass::subtract_base(Batch& batch, int layer, const Tensor& target_out) {
  const Tensor base = base_workspace_.of(Workspace::kMlpOut, target_out.shape());
  pair_.mlp(context_, base_workspace_, layer, MlpSource::kBase, batch.x, base);
  subtract_from(context_, base, target_out);
  check(batch, layer, Checked::kDelta, target_out);
}

std::int64_t RowPass::run_batch(const TokenSource& tokens, std::int64_t batch_tokens) {
  Batch batch = next_batch(tokens, batch_tokens);
  if (batch.sequences.empty()) return 0;
  const auto rows = static_cast<std::int64_t>(batch.kept.size());
  batch.rows = on_device(Tensor::of(std::span(batch.kept), {rows}));
  finite_.begin(context_, rows_to_check(batch));
  const Segment target{.splice = uniform_splice(pair_.config().layers, {.mlp = MlpSource::kTarget}),
                       .begin = 0,
                       .end = plan_.format.layers.back() + 1};
  runner_.run({&target, 1}, batch.tokens,
              {.keep = {}, .observe = [&](const Reading& reading) { observe(batch, reading); }});
  transfer_.finish();
  require_finite(batch);
  return rows;
}

Tensor RowPass::on_device(const Tensor& kept) {
  if (context_.device() == kept.device()) return kept;
  const Tensor there = grown(context_, kept_, kept.dtype(), 1, kept.size(0)).reshaped(kept.shape());
  copy(context_, kept, there);  // done before `kept` goes: run() waits for its own copies
  return there;
}

ShardRows RowPass::rows() const {
  const auto count = static_cast<std::int64_t>(ids_.size());
  ShardRows rows{.ids = ids_, .sequences = sequences_, .positions = positions_, .layers = {}};
  for (std::size_t i = 0; i < mlp_in_.size(); ++i)
    rows.layers.push_back({mlp_in_[i].tensor().rows(0, count), mlp_delta_[i].tensor().rows(0, count)});
  return rows;
}

}  // namespace tadapt

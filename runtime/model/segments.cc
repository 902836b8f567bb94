#include "runtime/model/segments.h"

#include <algorithm>
#include <set>

#include "kernels/pointwise.h"

namespace tadapt {
namespace {

Buffer copy_of(Context& context, const Tensor& values) {
  Buffer copy(context.device(), values.dtype(), values.shape());
  convert(context, values, copy.tensor());
  return copy;
}

}  // namespace

/// What the layers of one segment have in common while it runs.
struct SegmentRunner::Pass {
  int index;
  const Segment& segment;
  const TokenTensors& tokens;
  const RunReads& reads;
  Tensor residual;

  void read(int layer, ReadPoint point, const Tensor& values) const {
    if (reads.observe) reads.observe({.segment = index, .layer = layer, .point = point, .values = values});
  }
};

Tensor ResidualStates::at(StateName name) const {
  const auto found = states_.find(name);
  require_shape(found != states_.end(), "residual state {} of segment {} was not kept", name.layer, name.segment);
  return found->second.tensor();
}

void SegmentRunner::check(std::span<const Segment> segments, const RunReads& reads) const {
  const int layers = decoder_.config().layers;
  for (int index = 0; index < static_cast<int>(segments.size()); ++index) {
    const Segment& segment = segments[static_cast<std::size_t>(index)];
    require_shape(segment.splice.size() == static_cast<std::size_t>(layers),
                  "segment {}: splice of {} layers, model {}", index, segment.splice.size(), layers);
    require_shape(0 <= segment.begin && segment.begin <= segment.end && segment.end <= layers,
                  "segment {}: layers [{}, {}) of {}", index, segment.begin, segment.end, layers);
    if (segment.source == Segment::kTokens) {
      require_shape(segment.begin == 0, "segment {}: begins at layer {} but reads tokens", index, segment.begin);
      continue;
    }
    require_shape(0 <= segment.source && segment.source < index, "segment {}: source {} is not an earlier one", index,
                  segment.source);
    const Segment& source = segments[static_cast<std::size_t>(segment.source)];
    require_shape(source.begin <= segment.begin && segment.begin <= source.end,
                  "segment {}: begins at layer {}, its source has states {} to {}", index, segment.begin, source.begin,
                  source.end);
  }
  for (const StateName& name : reads.keep) {
    const bool exists = 0 <= name.segment && name.segment < static_cast<int>(segments.size()) &&
                        segments[static_cast<std::size_t>(name.segment)].begin <= name.layer &&
                        name.layer <= segments[static_cast<std::size_t>(name.segment)].end;
    require_shape(exists, "state {} of segment {} does not exist", name.layer, name.segment);
  }
}

void SegmentRunner::run_layer(const Pass& pass, int layer) {
  const LayerSplice& splice = pass.segment.splice[static_cast<std::size_t>(layer)];
  decoder_.add_attention(context_, workspace_, layer, pass.tokens, pass.residual, pass.segment.cached);
  const Tensor mlp_in = workspace_.of(Workspace::kNormed, pass.residual.shape());
  const Tensor mlp_out = workspace_.of(Workspace::kMlpOut, pass.residual.shape());
  decoder_.mlp_input(context_, layer, pass.residual, mlp_in);
  pass.read(layer, ReadPoint::kMlpIn, mlp_in);
  decoder_.mlp(context_, workspace_, layer, splice.mlp, mlp_in, mlp_out);
  if (splice.adapter != nullptr) splice.adapter->add_output(context_, layer, pass.tokens.batch, mlp_in, mlp_out);
  pass.read(layer, ReadPoint::kMlpOut, mlp_out);
  add_to(context_, mlp_out, pass.residual);
  pass.read(layer, ReadPoint::kBlockOut, pass.residual);
}

ResidualStates SegmentRunner::run(std::span<const Segment> segments, const TokenBatch& batch, const RunReads& reads) {
  check(segments, reads);
  const std::set<StateName> asked(reads.keep.begin(), reads.keep.end());
  std::set<StateName> kept = asked;
  for (const Segment& segment : segments) {
    if (segment.source != Segment::kTokens) kept.insert({segment.source, segment.begin});
  }
  const TokenTensors tokens = tokens_.place(context_, batch);
  ResidualStates states;
  const auto keep_if_needed = [&](StateName name, const Tensor& residual) {
    if (kept.contains(name)) states.states_.emplace(name, copy_of(context_, residual));
  };
  for (int index = 0; index < static_cast<int>(segments.size()); ++index) {
    const Segment& segment = segments[static_cast<std::size_t>(index)];
    const Tensor residual = workspace_.of(Workspace::kResidual, {batch.tokens(), decoder_.config().width});
    const Pass pass{.index = index, .segment = segment, .tokens = tokens, .reads = reads, .residual = residual};
    if (segment.source == Segment::kTokens) {
      decoder_.embed(context_, tokens, residual);
      pass.read(0, ReadPoint::kEmbeddings, residual);
    } else {
      convert(context_, states.at({segment.source, segment.begin}), residual);
    }
    keep_if_needed({index, segment.begin}, residual);
    for (int layer = segment.begin; layer < segment.end; ++layer) {
      run_layer(pass, layer);
      keep_if_needed({index, layer + 1}, residual);
    }
  }
  std::erase_if(states.states_, [&](const auto& state) { return !asked.contains(state.first); });
  return states;
}

void for_each_logits_chunk(Context& context, std::span<const LogitsSource> sources, std::size_t budget_bytes,
                           const std::function<void(const LogitsChunk&)>& visit) {
  if (sources.empty()) return;
  const std::int64_t rows = sources.front().residual.size(0);
  std::int64_t bytes_per_row = 0;
  for (const LogitsSource& source : sources) {
    require_shape(source.residual.size(0) == rows, "logits of {} rows beside {}", source.residual.size(0), rows);
    const DecoderConfig& config = source.decoder->config();
    bytes_per_row += (config.width + config.vocabulary) * static_cast<std::int64_t>(sizeof(float));
  }
  const std::int64_t fitting = static_cast<std::int64_t>(budget_bytes) / bytes_per_row;
  const std::int64_t chunk = std::clamp<std::int64_t>(fitting, 1, std::max<std::int64_t>(rows, 1));
  std::vector<Buffer> norm_memory, logit_memory;
  for (const LogitsSource& source : sources) {
    norm_memory.emplace_back(context.device(), DType::kFloat32, Shape{chunk, source.decoder->config().width});
    logit_memory.emplace_back(context.device(), DType::kFloat32, Shape{chunk, source.decoder->config().vocabulary});
  }
  for (std::int64_t begin = 0; begin < rows; begin += chunk) {
    const std::int64_t end = std::min(begin + chunk, rows);
    std::vector<Tensor> norms, logits;
    for (std::size_t i = 0; i < sources.size(); ++i) {
      norms.push_back(norm_memory[i].tensor().rows(0, end - begin));
      logits.push_back(logit_memory[i].tensor().rows(0, end - begin));
      sources[i].decoder->final_norm(context, sources[i].residual.rows(begin, end), norms[i]);
      sources[i].decoder->logits(context, norms[i], logits[i]);
    }
    visit({.begin = begin, .end = end, .final_norms = norms, .logits = logits});
  }
}

}  // namespace tadapt

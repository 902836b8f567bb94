#include "runtime/capture/shard_pass.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <limits>

#include "kernels/core/launch.h"
#include "kernels/pointwise.h"

namespace tadapt {
namespace {

constexpr std::int64_t kRowsPerBlock = 64;

/// The first row that holds an infinity or a NaN; -1 when there is none.
std::int64_t first_non_finite_row(const Context& context, const Tensor& values) {
  const auto numbers = values.span<float>();
  const auto width = static_cast<std::size_t>(values.size(1));
  std::atomic<std::int64_t> first{std::numeric_limits<std::int64_t>::max()};
  parallel_blocks(context, values.size(0), kRowsPerBlock, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t row = begin; row < end; ++row) {
      std::uint32_t largest = 0;  // exponent bits all set: not finite
      for (const float x : numbers.subspan(static_cast<std::size_t>(row) * width, width)) {
        largest = std::max(largest, std::bit_cast<std::uint32_t>(x) & 0x7f800000u);
      }
      if (largest != 0x7f800000u) continue;
      std::int64_t seen = first.load();
      while (row < seen && !first.compare_exchange_weak(seen, row)) {
      }
      return;
    }
  });
  return first == std::numeric_limits<std::int64_t>::max() ? -1 : first.load();
}

/// out_i = from_{rows_i}
void gather(Context& context, const Tensor& from, std::vector<std::int32_t>& rows, const Tensor& out) {
  embed(context, Tensor::of(std::span(rows), {static_cast<std::int64_t>(rows.size())}), from, out);
}

/// y = y - x, all in fp32
void subtract(const Context& context, const Tensor& x, const Tensor& y) {
  const auto from = x.span<float>(), to = y.span<float>();
  parallel_blocks(context, x.elements(), 1 << 14, [&](std::int64_t begin, std::int64_t end, int) {
    for (auto i = static_cast<std::size_t>(begin); i < static_cast<std::size_t>(end); ++i) to[i] -= from[i];
  });
}

}  // namespace

ShardPass::ShardPass(Context& context, const Decoder& pair, const CapturePlan& plan, std::int64_t shard)
    : context_(context),
      pair_(pair),
      plan_(plan),
      shard_(shard),
      next_sequence_(shard * plan.format.sequences_per_shard),
      end_sequence_(
          std::min(next_sequence_ + plan.format.sequences_per_shard, static_cast<std::int64_t>(plan.sequences.size()))),
      runner_(context, pair) {
  const Shape shape{plan.rows_per_shard.at(static_cast<std::size_t>(shard)), plan.format.width};
  for (std::size_t i = 0; i < plan.format.layers.size(); ++i) {
    mlp_in_.emplace_back(Device::kCpu, DType::kFloat32, shape);
    mlp_delta_.emplace_back(Device::kCpu, DType::kFloat32, shape);
  }
}

void ShardPass::add_sequence(const TokenSource& tokens, Batch& batch) {
  const std::int64_t sequence = next_sequence_++;
  const CapturePlan::Sequence& planned = plan_.sequences[static_cast<std::size_t>(sequence)];
  if (planned.rows == 0) return;
  const std::span<const std::int32_t> ids = tokens(sequence);
  const auto length = static_cast<std::int64_t>(ids.size());
  const std::vector<std::int32_t> positions = plan_.positions(sequence, length);
  if (positions.empty() || positions.back() + 1 != planned.tokens || planned.tokens > length) {
    throw DataError("sequence {} of the corpus has {} tokens, not what was planned for", sequence, length);
  }
  const auto first_row = static_cast<std::int32_t>(batch.tokens.tokens());
  for (const std::int32_t position : positions) {
    batch.kept.push_back(first_row + position);
    ids_.push_back(ids[static_cast<std::size_t>(position)]);
    positions_.push_back(position);
    sequences_.push_back(sequence);
  }
  batch.tokens.append(ids.first(static_cast<std::size_t>(planned.tokens)));
  batch.sequences.push_back(sequence);
}

ShardPass::Batch ShardPass::next_batch(const TokenSource& tokens, std::int64_t batch_tokens) {
  Batch batch;
  while (!done()) {
    const std::int64_t next = plan_.sequences[static_cast<std::size_t>(next_sequence_)].tokens;
    if (batch.tokens.tokens() > 0 && batch.tokens.tokens() + next > batch_tokens) break;
    add_sequence(tokens, batch);
  }
  return batch;
}

void ShardPass::require_finite(const Batch& batch, const Tensor& values, int layer, const char* tensor) const {
  const std::int64_t row = first_non_finite_row(context_, values);
  if (row < 0) return;
  const auto& offsets = batch.tokens.offsets;
  const auto after = std::upper_bound(offsets.begin(), offsets.end(), row);
  const auto index = static_cast<std::size_t>(after - offsets.begin() - 1);
  throw NonFiniteError("capture: layer {}: {} is not finite at position {} of sequence {}", layer, tensor,
                       row - offsets[index], batch.sequences[index]);
}

void ShardPass::observe(Batch& batch, const Reading& reading) {
  if (reading.point != ReadPoint::kMlpIn && reading.point != ReadPoint::kMlpOut) return;
  const bool is_input = reading.point == ReadPoint::kMlpIn;
  require_finite(batch, reading.values, reading.layer, is_input ? "mlp_in" : "mlp_out of the target");
  const auto& layers = plan_.format.layers;
  const auto found = std::lower_bound(layers.begin(), layers.end(), reading.layer);
  if (found == layers.end() || *found != reading.layer) return;
  const auto index = static_cast<std::size_t>(found - layers.begin());
  const std::int64_t end = filled_ + static_cast<std::int64_t>(batch.kept.size());
  const Tensor x = mlp_in_[index].tensor().rows(filled_, end);
  if (is_input) {
    gather(context_, reading.values, batch.kept, x);
  } else {
    add_delta(batch, reading, x, mlp_delta_[index].tensor().rows(filled_, end));
  }
}

void ShardPass::add_delta(Batch& batch, const Reading& reading, const Tensor& x, const Tensor& delta) {
  const Tensor base = base_workspace_.of(Workspace::kMlpOut, delta.shape());
  pair_.mlp(context_, base_workspace_, reading.layer, MlpSource::kBase, x, base);
  gather(context_, reading.values, batch.kept, delta);
  subtract(context_, base, delta);
  const std::int64_t row = first_non_finite_row(context_, delta);
  if (row < 0) return;
  const auto at = static_cast<std::size_t>(filled_ + row);
  throw NonFiniteError("capture: layer {}: mlp_out of the base is not finite at position {} of sequence {}",
                       reading.layer, positions_[at], sequences_[at]);
}

std::int64_t ShardPass::run_batch(const TokenSource& tokens, std::int64_t batch_tokens) {
  Batch batch = next_batch(tokens, batch_tokens);
  if (batch.sequences.empty()) return 0;
  const Segment target{.splice = uniform_splice(pair_.config().layers, {.mlp = MlpSource::kTarget}),
                       .begin = 0,
                       .end = plan_.format.layers.back() + 1};
  runner_.run({&target, 1}, batch.tokens,
              {.keep = {}, .observe = [&](const Reading& reading) { observe(batch, reading); }});
  filled_ += static_cast<std::int64_t>(batch.kept.size());
  return static_cast<std::int64_t>(batch.kept.size());
}

ShardRows ShardPass::rows() const {
  ShardRows rows{.ids = ids_, .sequences = sequences_, .positions = positions_, .layers = {}};
  for (std::size_t i = 0; i < mlp_in_.size(); ++i) rows.layers.push_back({mlp_in_[i].tensor(), mlp_delta_[i].tensor()});
  return rows;
}

}  // namespace tadapt

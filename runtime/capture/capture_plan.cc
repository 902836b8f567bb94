#include "runtime/capture/capture_plan.h"

#include <algorithm>
#include <limits>

namespace tadapt {
namespace {

void check(const CaptureRequest& request) {
  check_format(request.format);
  const int last = request.format.layers.back();
  if (last >= request.target.layers) {
    throw ConfigError("layer {} asked for; {} has {} layers", last, request.target.file.string(),
                      request.target.layers);
  }
  const auto check_option = [](const char* key, std::int64_t value) {
    if (value < 0) throw ConfigError("{} is {}, must not be negative", key, value);
  };
  check_option("cache.max_tokens", request.rows.max_tokens);
  check_option("cache.tokens_per_sequence", request.rows.tokens_per_sequence);
  check_option("cache.drop_first_positions", request.rows.drop_first_positions);
}

/// Rows and tokens of one sequence of which at most `budget` rows are kept.
CapturePlan::Sequence plan_sequence(const RowChoice& choice, std::int64_t sequence, std::int64_t length,
                                    std::int64_t budget) {
  if (choice.tokens_per_sequence == 0) {  // the common case, without drawing anything
    const std::int64_t eligible = std::max<std::int64_t>(0, length - choice.drop_first_positions);
    const std::int64_t rows = std::min(eligible, budget);
    return {.rows = rows, .tokens = rows == 0 ? 0 : choice.drop_first_positions + rows};
  }
  const std::vector<std::int32_t> positions = chosen_positions(choice, sequence, length);
  const std::int64_t rows = std::min(static_cast<std::int64_t>(positions.size()), budget);
  return {.rows = rows, .tokens = rows == 0 ? 0 : positions[static_cast<std::size_t>(rows - 1)] + 1};
}

double flops_of(const CapturePlan& plan, const ForwardFlops& flops) {
  const double run_layers = plan.format.layers.back() + 1;
  double contexts = 0;
  for (const CapturePlan::Sequence& sequence : plan.sequences) {
    contexts += 0.5 * static_cast<double>(sequence.tokens) * static_cast<double>(sequence.tokens + 1);
  }
  return run_layers * (static_cast<double>(plan.tokens) * (flops.attention_per_token + flops.mlp_per_token) +
                       contexts * flops.attention_per_context) +
         static_cast<double>(plan.rows) * static_cast<double>(plan.format.layers.size()) * flops.mlp_per_token;
}

std::uint64_t memory_for_shard(const CacheFormat& format, std::int64_t rows) {
  const std::uint64_t row_bytes = 2 * format.layers.size() * static_cast<std::uint64_t>(format.width) * sizeof(float);
  return static_cast<std::uint64_t>(rows) * row_bytes + shard_file_bytes(format, rows);
}

}  // namespace

std::vector<SequenceRows> CapturePlan::rows_of_shard(std::int64_t shard) const {
  const std::int64_t begin = shard * format.sequences_per_shard;
  const std::int64_t end = std::min(begin + format.sequences_per_shard, static_cast<std::int64_t>(sequences.size()));
  std::vector<SequenceRows> parts;
  for (std::int64_t sequence = begin; sequence < end; ++sequence)
    parts.push_back({sequence, 0, sequences[static_cast<std::size_t>(sequence)].rows});
  return parts;
}

std::vector<std::int32_t> CapturePlan::positions(std::int64_t sequence, std::int64_t length) const {
  std::vector<std::int32_t> positions = chosen_positions(choice, sequence, length);
  positions.resize(static_cast<std::size_t>(sequences.at(static_cast<std::size_t>(sequence)).rows));
  return positions;
}

CapturePlan plan_capture(const CaptureRequest& request) {
  check(request);
  CapturePlan plan;
  plan.format = request.format;
  plan.choice = request.rows;
  const std::int64_t most =
      request.rows.max_tokens == 0 ? std::numeric_limits<std::int64_t>::max() : request.rows.max_tokens;
  for (std::size_t i = 0; i < request.lengths.size() && plan.rows < most; ++i) {
    const auto sequence = static_cast<std::int64_t>(i);
    require_positions(request.target, sequence, request.lengths[i]);
    const auto shard = static_cast<std::size_t>(sequence / request.format.sequences_per_shard);
    if (shard == plan.rows_per_shard.size()) plan.rows_per_shard.push_back(0);
    plan.sequences.push_back(plan_sequence(request.rows, sequence, request.lengths[i], most - plan.rows));
    plan.rows_per_shard[shard] += plan.sequences.back().rows;
    plan.rows += plan.sequences.back().rows;
    plan.tokens += plan.sequences.back().tokens;
  }
  if (plan.rows == 0) {
    throw ConfigError("nothing to capture: {} sequences, of which cache.drop_first_positions {} leaves no token",
                      request.lengths.size(), request.rows.drop_first_positions);
  }
  plan.size = cache_size(plan.format, plan.rows_per_shard);
  plan.shard_memory_bytes = memory_for_shard(plan.format, std::ranges::max(plan.rows_per_shard));
  plan.model_memory_bytes = pair_memory_bytes(request.target, request.compute);
  plan.flops = flops_of(plan, forward_flops(request.target));
  return plan;
}

}  // namespace tadapt

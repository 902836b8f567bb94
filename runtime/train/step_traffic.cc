#include "runtime/train/step_traffic.h"

#include "data/activation_cache.h"
#include "runtime/adapter/adapter.h"
#include "runtime/comm/pairwise_plan.h"
#include "runtime/loss/stage_traffic.h"
#include "runtime/train/bridging_report.h"
#include "runtime/train/bridging_run.h"
#include "runtime/train/bridging_step.h"
#include "runtime/train/local_step.h"

namespace tadapt {
namespace {

constexpr std::int64_t kFigureBytes = sizeof(double);

/// A rank's place in the group that sums gradients.
struct Member {
  int place, ranks;
  SumPath path;

  std::int64_t sent(Collective collective, std::int64_t elements) const {
    if (path == SumPath::kPairwise) return sent_bytes(collective, place, ranks, elements);
    const std::int64_t once = elements * static_cast<std::int64_t>(sizeof(float)) * (ranks - 1) / ranks;
    return collective == Collective::kSum ? 2 * once : once;
  }
};

/// One adapter's: GradientExchange and join_square_sums.
void add_adapter(const RunOptions& options, const AdapterShape& shape, const Member& member, StepTraffic& traffic) {
  const auto adapter = make_adapter(options.adapter.type, shape, {options.train.compute});
  const ParameterGroup layout = lay_out(adapter->parameters("adapter"));
  if (options.optim.shard_state == ShardState::kOff) {
    traffic.gradients += member.sent(Collective::kSum, layout.exchange_elements);
    return;
  }
  const std::int64_t statistics = layout.exchange_elements - layout.trainable_elements;
  const std::int64_t longest_part = parts_of(layout.trainable_elements, member.ranks).back().size();
  traffic.gradients +=
      member.sent(Collective::kScatterSum, layout.trainable_elements) + member.sent(Collective::kSum, statistics);
  traffic.weights += member.sent(Collective::kGather, layout.trainable_elements) +
                     gather_sent_bytes(member.ranks, longest_part / kReductionBlock * kFigureBytes);
}

/// Every rank makes as many rows, and gives each to those that train on it: one rank of every block.
std::int64_t streamed_bytes(const RunOptions& options, const RunShape& shape, const ProcessGrid& grid, int rank) {
  const CacheFormat format{.layers = shape.layers, .width = shape.width, .row_dtype = shape.row_dtype};
  const auto row_bytes = [&](int block) {
    return 2.0 * static_cast<double>(grid.layers_of_block(block).size()) * static_cast<double>(shape.width) *
           static_cast<double>(bytes_per_element(delivered_dtype(format)));
  };
  double of_a_row = 0.0;
  for (int block = 0; block < grid.blocks(); ++block) of_a_row += row_bytes(block);
  of_a_row -= row_bytes(grid.block_of(rank)) / grid.data_parallel();  // those it makes for itself
  return static_cast<std::int64_t>(of_a_row * static_cast<double>(options.train.batch_tokens) / grid.ranks());
}

}  // namespace

StepTraffic local_traffic(const RunOptions& options, const RunShape& shape, const ProcessGrid& grid, int rank,
                          SumPath path) {
  StepTraffic traffic;
  const Member member{grid.index_of(rank), grid.group_size(), path};
  for (const std::int64_t features : shape.dictionaries) {
    StepTraffic one;
    add_adapter(options, {shape.width, features}, member, one);
    const auto layers = static_cast<std::int64_t>(grid.layers_of_block(grid.block_of(rank)).size());
    traffic.gradients += layers * one.gradients;
    traffic.weights += layers * one.weights;
  }
  if (options.cache.source == RowSource::kStream) traffic.rows = streamed_bytes(options, shape, grid, rank);
  const auto fields = LocalStep::shared_fields(grid.most_layers() * shape.dictionaries.size());
  traffic.figures = gather_sent_bytes(grid.ranks(), static_cast<std::int64_t>(fields) * kFigureBytes);
  return traffic;
}

StepTraffic bridging_traffic(const RunOptions& options, const BridgingShape& shape, const ProcessGrid& grid, int rank,
                             const BridgingSample& step, SumPath path) {
  StepTraffic traffic;
  const auto layers = static_cast<std::int64_t>(grid.layers_of_block(grid.block_of(rank)).size());
  StepTraffic one;
  add_adapter(options, {shape.target.width, options.adapter.features}, {grid.index_of(rank), grid.group_size(), path},
              one);
  traffic.gradients = layers * one.gradients;
  traffic.weights = layers * one.weights;
  const BridgingSchedule schedule(shape.target.layers, options.loss.backbone, step.cutoffs);
  const std::int64_t states = states_sent(schedule, part_of_rank(grid, rank, shape.target.layers));
  const std::size_t own = step.leaf_tokens.size() / static_cast<std::size_t>(grid.data_parallel());
  const std::size_t first = static_cast<std::size_t>(grid.part_of(rank)) * own;
  for (std::size_t leaf = first; leaf < first + own; ++leaf)
    traffic.states += states * step.leaf_tokens[leaf] * shape.target.width * static_cast<std::int64_t>(sizeof(float));
  const std::size_t fields =
      grid.most_layers() +
      BridgingReport::shared_fields(static_cast<std::size_t>(shape.target.layers) + 1, grid.most_layers());
  traffic.figures = gather_sent_bytes(grid.ranks(), static_cast<std::int64_t>(fields) * kFigureBytes);
  return traffic;
}

}  // namespace tadapt

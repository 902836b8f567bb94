// What a step of the local objective sends, counted on the wire: the formulas of docs/scaling.md.
#include <bit>
#include <cmath>

#include "tests/train/trainer_fixture.h"

namespace tadapt {
namespace {

class Communication : public testing::TrainerTest {
 protected:
  static constexpr std::int64_t kFeatures = 3000;

  /// Bytes that each rank sends in one step, on average over ten.
  std::vector<double> bytes_of_a_step(GridShape shape, ShardState shard) {
    const auto train_for = [&](std::int64_t steps) {
      train(fmt::format("{}-{}-{}", shape.to_string(), shard == ShardState::kOn, steps), shape, steps,
            [&](RunOptions& options) {
              options.adapter.features = kFeatures;
              options.train.evaluate_every_steps = 0;
              options.optim.shard_state = shard;
            });
      return sent_;
    };
    const std::vector<std::uint64_t> few = train_for(2), many = train_for(12);
    std::vector<double> bytes;
    for (std::size_t rank = 0; rank < few.size(); ++rank)
      bytes.push_back(static_cast<double>(many[rank] - few[rank]) / 10.0);
    return bytes;
  }

  /// Numbers of one adapter that a group sums: its parameters and the counters behind them.
  static double exchanged_numbers() {
    const auto adapter = make_adapter("transcoder", {testing::kWidth, kFeatures}, {DType::kFloat32});
    return static_cast<double>(ParameterStore(Device::kCpu, {adapter->parameters("one")}).group(0).exchange_elements);
  }
};

TEST_F(Communication, OfAStepIsTheSumOfGradientsAndOneShortMessage) {
  for (const GridShape shape : {GridShape{1, 1}, GridShape{1, 2}, GridShape{1, 4}, GridShape{3, 1}, GridShape{3, 2}}) {
    for (const ShardState shard : {ShardState::kOff, ShardState::kOn}) {
      SCOPED_TRACE(shape.to_string() + (shard == ShardState::kOn ? ", shared state" : ""));
      const double layers = std::ceil(static_cast<double>(testing::kLayers) / shape.blocks);
      const double group = shape.data_parallel, ranks = shape.ranks();
      // Halved at each distance and back, on borders of blocks: at most one block more at each.
      const double slack = 2.0 * std::log2(group) * 4.0 * static_cast<double>(kReductionBlock);
      const double gradients = layers * 2.0 * (1.0 - 1.0 / group) * 4.0 * exchanged_numbers();
      // Six figures of each layer and the stop flag; with shared state also square sums of blocks and their gather.
      const double metrics = (ranks - 1.0) * 8.0 * (1.0 + 6.0 * layers);
      const double sums =
          shard == ShardState::kOn
              ? layers * (group - 1.0) * 8.0 * (exchanged_numbers() / static_cast<double>(kReductionBlock) + 1.0)
              : 0.0;
      for (const double bytes : bytes_of_a_step(shape, shard)) {
        EXPECT_LE(bytes, gradients + layers * slack + metrics + sums + 64.0);
        EXPECT_GE(bytes, gradients - layers * slack);
      }
    }
  }
}

}  // namespace
}  // namespace tadapt

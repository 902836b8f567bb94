// What ranks send in a step, counted on the wire, against what --dry-run says they will.
#include "runtime/train/step_traffic.h"
#include "tests/train/trainer_fixture.h"

namespace tadapt {
namespace {

class Communication : public testing::TrainerTest {
 protected:
  static constexpr std::int64_t kFeatures = 3000;

  static void change(RunOptions& options, ShardState shard) {
    options.adapter.features = kFeatures;
    options.train.reduction_leaves = 8;
    options.train.evaluate_every_steps = 0;
    options.optim.shard_state = shard;
  }

  /// Bytes that each rank sends in one step, on average over ten.
  std::vector<double> bytes_of_a_step(GridShape shape, ShardState shard) {
    const auto train_for = [&](std::int64_t steps) {
      train(fmt::format("{}-{}-{}", shape.to_string(), shard == ShardState::kOn, steps), shape, steps,
            [&](RunOptions& options) { change(options, shard); });
      return sent_;
    };
    const std::vector<std::uint64_t> few = train_for(2), many = train_for(12);
    std::vector<double> bytes;
    for (std::size_t rank = 0; rank < few.size(); ++rank)
      bytes.push_back(static_cast<double>(many[rank] - few[rank]) / 10.0);
    return bytes;
  }

  StepTraffic planned(GridShape shape, ShardState shard, int rank) {
    RunOptions options = testing::small_options(folder_ / "run");
    change(options, shard);
    const RunShape run{.layers = {0, 1, 2}, .width = testing::kWidth, .dictionaries = {kFeatures}};
    return local_traffic(options, run, ProcessGrid(shape, run.layers), rank);
  }
};

TEST_F(Communication, IsWhatWasPlanned) {
  // What the ranks tell each other at the ends of a run has a few digits more or fewer.
  constexpr double kDigits = 4.0;
  for (const GridShape shape :
       {GridShape{1, 1}, GridShape{1, 2}, GridShape{3, 1}, GridShape{1, 4}, GridShape{3, 2}, GridShape{1, 8}}) {
    for (const ShardState shard : {ShardState::kOff, ShardState::kOn}) {
      SCOPED_TRACE(shape.to_string() + (shard == ShardState::kOn ? ", shared state" : ""));
      const std::vector<double> sent = bytes_of_a_step(shape, shard);
      for (int rank = 0; rank < shape.ranks(); ++rank)
        EXPECT_NEAR(sent[static_cast<std::size_t>(rank)], static_cast<double>(planned(shape, shard, rank).total()),
                    kDigits);
    }
  }
}

/// It must not grow unnoticed: twice the gradients' bytes but for a rank's own share, and little beside them.
TEST_F(Communication, IsTheGradientsAndOneShortMessage) {
  for (const GridShape shape : {GridShape{1, 1}, GridShape{1, 2}, GridShape{1, 8}, GridShape{3, 1}, GridShape{3, 2}}) {
    SCOPED_TRACE(shape.to_string());
    const double layers = 3.0 / shape.blocks, group = shape.data_parallel;
    const double numbers = 2.0 * testing::kWidth * kFeatures + 2.0 * kFeatures + testing::kWidth;
    const double padding = 5.0 * static_cast<double>(kReductionBlock);
    const double blocks = layers * 2.0 * 4.0 * std::log2(group) * static_cast<double>(kReductionBlock);
    const StepTraffic off = planned(shape, ShardState::kOff, 0);
    EXPECT_LE(static_cast<double>(off.gradients), layers * 8.0 * (1.0 - 1.0 / group) * (numbers + padding) + blocks);
    EXPECT_EQ(off.figures, (shape.ranks() - 1) * 8 * (1 + 6 * static_cast<std::int64_t>(layers)));
    EXPECT_EQ(off.weights + off.states + off.rows, 0);
    const StepTraffic on = planned(shape, ShardState::kOn, 0);
    EXPECT_LE(static_cast<double>(on.gradients + on.weights), 1.2 * static_cast<double>(off.gradients) + blocks);
  }
}

TEST_F(Communication, RoundARingEachRankSendsAllButItsShareTwice) {
  RunOptions options = testing::small_options(folder_ / "run");
  change(options, ShardState::kOff);
  const RunShape run{.layers = {0, 1, 2}, .width = testing::kWidth, .dictionaries = {kFeatures}};
  const ProcessGrid grid({1, 4}, run.layers);
  const auto adapter = make_adapter("transcoder", {testing::kWidth, kFeatures}, {DType::kFloat32});
  const std::int64_t numbers = lay_out(adapter->parameters("one")).exchange_elements;
  EXPECT_EQ(local_traffic(options, run, grid, 1, SumPath::kRing).gradients, 3 * 2 * (4 * numbers * 3 / 4));
}

}  // namespace
}  // namespace tadapt

// Optimiser state shared by the ranks of a group: the files of a run in which every rank has all of it.
#include "runtime/train/state_shards.h"

#include <limits>
#include <tuple>
#include <utility>

#include "tests/train/trainer_fixture.h"

namespace tadapt {
namespace {
using testing::RankRun;
using testing::small_options;

class StateShards : public testing::TrainerTest {
 protected:
  /// Options of a run of blocks enough for parts of unlike sizes: 4 of W_enc, 1 of b_enc, 4 of W_dec, 1 of b_dec.
  RunOptions wide_options(const std::string& run, ShardState shard) {
    files_.make_directories(folder_ / run);
    RunOptions options = small_options(folder_ / run);
    options.adapter.features = 2100;
    options.optim.shard_state = shard;
    return options;
  }
  /// Until step 6, or asked to stop in step `stop`.
  void train_wide(const RunOptions& options, GridShape shape, std::int64_t stop = 0) {
    testing::run_ranks(shape.blocks * shape.data_parallel, [&](Communicator& world) {
      RankRun rank(files_, world, options, folder_ / "cache", ProcessGrid(shape, {0, 1, 2}));
      if (world.rank() == 0) rank.stop_in_step = stop;
      EXPECT_EQ(rank.train(6).finished, stop == 0);
    });
  }
  void expect_same_end(const std::string& one, const std::string& other) {
    EXPECT_EQ(file(one + "/metrics.jsonl"), file(other + "/metrics.jsonl"));
    for (const char* part : {"layer-000.safetensors", "layer-001.optimizer.safetensors",
                             "layer-002.optimizer.safetensors", "state.json", "MANIFEST"})
      EXPECT_EQ(file(one + "/checkpoints/step-000000006/" + part), file(other + "/checkpoints/step-000000006/" + part))
          << part << " of " << other;
  }
};

TEST_F(StateShards, SharedStateGivesTheSameFilesOnAnyGrid) {
  train_wide(wide_options("whole", ShardState::kOff), {1, 1});
  for (const GridShape shape : {GridShape{1, 1}, GridShape{1, 2}, GridShape{1, 4}, GridShape{2, 2}, GridShape{3, 1}}) {
    const std::string name = shape.to_string();
    train_wide(wide_options(name, ShardState::kOn), shape);
    expect_same_end("whole", name);
  }
}

TEST_F(StateShards, RanksWithoutAPartOfTheStateTrainOn) {
  for (const auto& [run, shard, ranks] : {std::tuple{"whole", ShardState::kOff, 1}, {"shared", ShardState::kOn, 8}}) {
    RunOptions options = wide_options(run, shard);
    options.adapter.features = 10;  // 4 blocks
    options.train.reduction_leaves = 8;
    train_wide(options, {1, ranks});
  }
  expect_same_end("whole", "shared");
}

TEST_F(StateShards, ARunGoesOnWhoeverHasTheState) {
  constexpr auto kOff = ShardState::kOff, kOn = ShardState::kOn;
  train_wide(wide_options("whole", kOff), {1, 1});
  struct Change {
    GridShape before;
    ShardState shared_before;
    GridShape after;
    ShardState shared_after;
  };
  for (const auto& [before, shared_before, after, shared_after] :
       {Change{{1, 2}, kOn, {3, 1}, kOff}, Change{{1, 1}, kOff, {1, 4}, kOn}, Change{{2, 2}, kOn, {1, 4}, kOn},
        Change{{1, 4}, kOn, {1, 4}, kOff}}) {
    const std::string name = before.to_string() + (shared_before == kOn ? " shared, " : ", ") + after.to_string();
    train_wide(wide_options(name, shared_before), before, 3);
    train_wide(wide_options(name, shared_after), after);
    expect_same_end("whole", name);
  }
}

/// Refuses once to make a file of this name.
class RefusingFileSystem : public RealFileSystem {
 public:
  explicit RefusingFileSystem(std::string name) : name_(std::move(name)) {}
  std::unique_ptr<File> open(const std::filesystem::path& path, OpenMode mode) override {
    if (mode == OpenMode::kCreate && path.filename() == name_ && !std::exchange(refused_, true))
      throw WriteError("{}: refused", path.string());
    return RealFileSystem::open(path, mode);
  }

 private:
  std::string name_;
  bool refused_ = false;
};

TEST_F(StateShards, ASaveThatFailsOnOneRankLeavesNoOtherWaitingForItsMoments) {
  RunOptions options = wide_options("run", ShardState::kOn);
  options.checkpoint.every_steps = 2;
  testing::run_ranks(2, [&](Communicator& world) {
    RefusingFileSystem files(world.rank() == 0 ? "layer-000.safetensors" : "none");
    RankRun rank(files, world, options, folder_ / "cache", ProcessGrid({1, 2}, {0, 1, 2}));
    EXPECT_TRUE(rank.train(6).finished);
  });
  EXPECT_FALSE(files_.exists(folder_ / "run/checkpoints/step-000000002"));
  train_wide(wide_options("whole", ShardState::kOff), {1, 1});
  expect_same_end("whole", "run");
}

TEST_F(StateShards, ANonFiniteGradientIsNamedByWhoeverHasItsPart) {
  RunOptions options = small_options(folder_ / "run");
  options.train.reduction_leaves = 8;
  options.optim.shard_state = ShardState::kOn;
  for (const int ranks : {2, 8}) {  // of 8, the last one has all of the state
    const auto run = [&] {
      testing::run_ranks(ranks, [&](Communicator& world) {
        RankRun rank(files_, world, options, folder_ / "cache", ProcessGrid({1, ranks}, {0, 1, 2}));
        rank.store().master_views(1)["W_dec"].span<float>()[3] = std::numeric_limits<float>::quiet_NaN();
        rank.train(5);
      });
    };
    try {
      run();
      FAIL() << "trained on";
    } catch (const DivergedRun& error) {  // whichever rank came first
      EXPECT_THAT(error.what(),
                  ::testing::AllOf(::testing::HasSubstr("layer 1"), ::testing::HasSubstr("gradient of W_enc")));
    }
  }
  EXPECT_FALSE(files_.exists(folder_ / "run/checkpoints"));
}

}  // namespace
}  // namespace tadapt

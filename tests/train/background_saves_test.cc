// Checkpoints that are written beside training: the same bytes, in time, and their failures.
#include <atomic>
#include <thread>

#include "data/observed_files.h"
#include "tests/support/campaign.h"
#include "tests/support/errors.h"
#include "tests/train/trainer_fixture.h"

namespace tadapt {
namespace {
using testing::RankRun;
using testing::small_options;

class BackgroundSaves : public testing::TrainerTest {
 protected:
  /// Ten steps, a checkpoint every other one, all kept, through files that `on_transfer` hears of.
  TrainingOutcome train_with(const std::string& run, int failures_allowed, ObservedFileSystem::OnTransfer on_transfer) {
    ObservedFileSystem files(files_, std::move(on_transfer));
    files.make_directories(folder_ / run);
    RunOptions options = small_options(folder_ / run);
    options.checkpoint = {.every_steps = 2, .keep = 2, .failures_allowed = failures_allowed};
    SelfCommunicator self;
    RankRun rank(files, self, options, folder_ / "cache", ProcessGrid({}, {0, 1, 2}));
    return rank.train(10);
  }
  bool has(const std::string& run, int step) {
    return files_.exists(folder_ / run / fmt::format("checkpoints/step-{:09}", step));
  }
};

bool writes_to(const FileTransfer& transfer, const std::string& part) {
  return transfer.written > 0 && transfer.path.string().find(part) != std::string::npos;
}

TEST_F(BackgroundSaves, AreTheBytesOfThoseThatTrainingWaitsFor) {
  const std::int64_t steps = testing::campaign_cases(10);
  const auto saving = [](Asynchronous asynchronous, ShardState shard) {
    return [=](RunOptions& options) {
      options.checkpoint = {.every_steps = 2, .keep = 1000, .failures_allowed = 0, .asynchronous = asynchronous};
      options.optim.shard_state = shard;
    };
  };
  train("waits", {}, steps, saving(Asynchronous::kOff, ShardState::kOff));
  std::int64_t compared = 0;
  for (const auto& [shape, shard] : {std::pair{GridShape{1, 1}, ShardState::kOff},
                                     {GridShape{1, 4}, ShardState::kOn},
                                     {GridShape{3, 1}, ShardState::kOff},
                                     {GridShape{1, 2}, ShardState::kOff}}) {
    const std::string name = shape.to_string();
    train(name, shape, steps, saving(Asynchronous::kOn, shard));
    for (std::int64_t step = 2; step <= steps; step += 2, ++compared) {
      const std::string folder = fmt::format("/checkpoints/step-{:09}/", step);
      for (const char* part : {"MANIFEST", "state.json", "layer-001.safetensors", "layer-002.optimizer.safetensors"})
        EXPECT_EQ(file("waits" + folder + part), file(name + folder + part)) << name << " step " << step << " " << part;
    }
    EXPECT_EQ(file("waits/metrics.jsonl"), file(name + "/metrics.jsonl"));
  }
  if (!HasFailure())
    testing::tell_campaign("R5", "checkpoints written beside training, byte for byte those waited for", compared,
                           compared);
}

TEST_F(BackgroundSaves, TrainingGoesOnMeanwhileAndTheNextOneWaits) {
  std::atomic<int> lines = 0;
  std::atomic<bool> in_time = true;
  train_with("run", 0, [&](const FileTransfer& transfer) {
    if (writes_to(transfer, "metrics.jsonl")) ++lines;
    if (!writes_to(transfer, "step-000000002.tmp")) return;
    // Steps 3 and 4 come while the checkpoint of step 2 is being written.
    for (int waited = 0; lines < 4 && waited < 5000; ++waited)
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    in_time = in_time && lines >= 4;
  });
  EXPECT_TRUE(in_time);
  EXPECT_TRUE(has("run", 8));
  EXPECT_TRUE(has("run", 10));
  EXPECT_FALSE(has("run", 6));  // two are kept
}

TEST_F(BackgroundSaves, MayFailAFewTimes) {
  const auto full_disk = [](const FileTransfer& transfer) {
    if (writes_to(transfer, "step-000000002.tmp") || writes_to(transfer, "step-000000004.tmp"))
      throw WriteError("{}: no space", transfer.path.string());
  };
  EXPECT_TRUE(train_with("patient", 2, full_disk).finished);
  EXPECT_TRUE(has("patient", 10));
  EXPECT_ERROR(train_with("impatient", 1, full_disk), WriteError, ::testing::HasSubstr("step-000000004.tmp"));
  EXPECT_FALSE(has("impatient", 4));
}

TEST_F(BackgroundSaves, TheLastOneMayNot) {
  const auto full_disk = [](const FileTransfer& transfer) {
    if (writes_to(transfer, "step-000000010.tmp")) throw WriteError("{}: no space", transfer.path.string());
  };
  EXPECT_ERROR(train_with("run", 100, full_disk), WriteError, ::testing::HasSubstr("step-000000010.tmp"));
  EXPECT_TRUE(has("run", 8));
}

}  // namespace
}  // namespace tadapt

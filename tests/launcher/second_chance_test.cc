// The real program given the right words after wrong ones, or a run directory in which something is missing.
#include "data/file.h"
#include "tests/launcher/small_run.h"

namespace tadapt {
namespace {
using ::testing::AllOf;
using testing::Ended;
using ::testing::HasSubstr;
using ::testing::Not;
using testing::run_shell;
namespace fs = std::filesystem;

using SecondChance = testing::SmallRun;

TEST_F(SecondChance, AConfigurationThatNothingWasTrainedWithMayBeCorrected) {
  expect_error(run("--layers 99"), ExitCode::kBadConfig, HasSubstr("layer 99"));
  put("run.yaml", text_of("run.yaml") + "optim: {learning_rate: 0.5}\n");
  EXPECT_EQ(run("").code, ExitCode::kDone);
}

TEST_F(SecondChance, TheGridIsCheckedBeforeTheCapture) {
  const Ended blocks = run("--set grid.layer_blocks=7");
  expect_error(blocks, ExitCode::kBadConfig, HasSubstr("grid.layer_blocks is 7"));
  EXPECT_THAT(blocks.output, Not(HasSubstr("capture:")));
  EXPECT_EQ(run("").code, ExitCode::kDone);
}

TEST_F(SecondChance, ALayerWithNothingToLearnIsLeftOutWithoutAnotherCapture) {
  fs::remove_all(folder_ / "base");
  fs::copy(folder_ / "target", folder_ / "base", fs::copy_options::recursive);
  const Ended first = run("");
  expect_error(first, ExitCode::kBadConfig, HasSubstr("layer 0"));
  EXPECT_THAT(first.output, HasSubstr("capture:"));
  const Ended second = run("--layers 1,2");
  EXPECT_THAT(second.output, Not(HasSubstr("capture:")));
  expect_error(second, ExitCode::kBadConfig, HasSubstr("layer 1"));
}

TEST_F(SecondChance, SomeLayersAreTrainedFromACacheOfAll) {
  ASSERT_EQ(run("--layers 1,3 --set cache.dir=" + (folder_ / "own").string()).code, ExitCode::kDone);
  ASSERT_EQ(run(fmt::format("--run {0}/all --set cache.dir={0}/cache", folder_.path().string())).code, ExitCode::kDone);
  const Ended ended =
      run(fmt::format("--run {0}/some --set cache.dir={0}/cache --layers 1,3", folder_.path().string()));
  EXPECT_EQ(ended.code, ExitCode::kDone) << ended.output;
  EXPECT_THAT(ended.output, Not(HasSubstr("capture:")));
  EXPECT_EQ(text_of("some/metrics.jsonl"), text_of("run/metrics.jsonl"));
}

TEST_F(SecondChance, NoCheckpointIsWhole) {
  ASSERT_EQ(run("").code, ExitCode::kDone);
  const std::string metrics = text_of("run/metrics.jsonl");
  const fs::path part = folder_ / "run/checkpoints/step-000000002/layer-001.safetensors";
  flip_a_byte(part, fs::file_size(part) - 10);
  expect_error(run(""), ExitCode::kBadData, AllOf(HasSubstr("run/checkpoints"), HasSubstr("step-000000002")));
  EXPECT_EQ(text_of("run/metrics.jsonl"), metrics);
}

TEST_F(SecondChance, AFinishedRunNeedsNothingElse) {
  ASSERT_EQ(run("").code, ExitCode::kDone);
  for (const char* name : {"run/cache", "corpus.jsonl", "base"}) fs::remove_all(folder_ / name);
  const Ended ended = run("");
  EXPECT_EQ(ended.code, ExitCode::kDone) << ended.output;
  EXPECT_THAT(ended.output, AllOf(HasSubstr("already finished: 2 steps"), Not(HasSubstr("capture:")),
                                  HasSubstr("step=2 checkpoint=" + (folder_ / "run/checkpoints/step-").string())));
}

TEST_F(SecondChance, ACompleteCacheNeedsNoCorpus) {
  ASSERT_EQ(run("").code, ExitCode::kDone);
  fs::remove(folder_ / "corpus.jsonl");
  EXPECT_EQ(run(another_run()).code, ExitCode::kDone);
  fs::remove(folder_ / "run/cache/shard-000001.h5");
  expect_error(run(fmt::format("--run {0}/third --set cache.dir={0}/run/cache", folder_.path().string())),
               ExitCode::kMissingInput, HasSubstr("corpus.jsonl"));
}

TEST_F(SecondChance, ACacheInWhichAnotherJobCapturesIsRefused) {
  fs::create_directories(folder_ / "run/cache");
  RealFileSystem files;
  {
    const auto other = files.lock(folder_ / "run/cache/capture.lock", "rank 0/9 elsewhere");
    expect_error(run(""), ExitCode::kCannotWrite, AllOf(HasSubstr("capture.lock"), HasSubstr("rank 0/9 elsewhere")));
  }
  EXPECT_EQ(run("").code, ExitCode::kDone);
}

TEST_F(SecondChance, ALockNamesTheProcessAndItsSlurmJob) {
  const Ended ended =
      run_shell(fmt::format("env SLURM_JOB_ID=17 SLURM_RESTART_COUNT=2 SLURM_JOB_NUM_NODES=1 SLURM_JOB_NODELIST=n5 "
                            "{}/tadapt-dist --config {}",
                            TADAPT_BINARY_DIR, (folder_ / "run.yaml").string()));
  EXPECT_THAT(ended.output, HasSubstr("Slurm job 17, restart 2: 1 rank on 1 node, n5\n"));
  EXPECT_THAT(text_of("run/run.lock"), ::testing::MatchesRegex("rank 0/1 [^,]*, pid [0-9]+, Slurm job 17, restart 2"));
}

TEST_F(SecondChance, HoldingOutLessThanAskedForIsSaid) {
  EXPECT_THAT(run("--set cache.held_out_shards=99").output, HasSubstr("of which one must be trained on: the last 2"));
  EXPECT_THAT(run("--dry-run --run other --set cache.sequences_per_shard=1000").output,
              HasSubstr("the cache has 1 shard, of which one must be trained on: nothing is held out"));
}

TEST_F(SecondChance, LostMetricsAreSaid) {
  ASSERT_EQ(run("--set checkpoint.every_steps=1").code, ExitCode::kDone);
  fs::remove_all(folder_ / "run/checkpoints/step-000000002");
  put("run/metrics.jsonl", "");
  const Ended ended = run("");
  EXPECT_EQ(ended.code, ExitCode::kDone);
  EXPECT_THAT(ended.output, HasSubstr("WARNING: metrics.jsonl lacks the lines of 1 of the steps before 2"));
}

}  // namespace
}  // namespace tadapt

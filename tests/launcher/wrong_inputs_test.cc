// Wrong inputs given to the real program on two ranks: one clear line, the right exit code, no hang, nothing lost.
#include "tests/launcher/small_run.h"

namespace tadapt {
namespace {
using ::testing::AllOf;
using testing::Ended;
using ::testing::HasSubstr;
using testing::run_shell;
using ::testing::SizeIs;
namespace fs = std::filesystem;

using WrongInputs = testing::SmallRun;

TEST_F(WrongInputs, NothingWrong) {
  const Ended ended = run("");
  EXPECT_EQ(ended.code, ExitCode::kDone) << ended.output;
  EXPECT_THAT(ended.errors, SizeIs(0));
  EXPECT_THAT(ended.output, HasSubstr("tadapt: exit=0 reason=finished step=2 checkpoint="));
}

TEST(ProcessesThatMpiDoesNotConnect, AreRefusedAndTheFirstSaysIt) {
  const auto start = [](int place) {
    return run_shell(fmt::format("env -u OMPI_COMM_WORLD_SIZE SLURM_STEP_NUM_TASKS=3 SLURM_PROCID={} {}/tadapt-dist",
                                 place, TADAPT_BINARY_DIR));
  };
  const Ended first = start(0), other = start(2);
  EXPECT_EQ(first.code, ExitCode::kBadConfig);
  EXPECT_EQ(first.output,
            "tadapt: srun started 3 processes that MPI does not connect; start them with srun --mpi=pmix, or mpirun\n");
  EXPECT_EQ(other.code, ExitCode::kBadConfig);
  EXPECT_EQ(other.output, "");
}

TEST_F(WrongInputs, MissingModelFile) {
  fs::remove(folder_ / "base/model.safetensors");
  expect_error(run(""), ExitCode::kMissingInput, HasSubstr("base"));
}

TEST_F(WrongInputs, TruncatedSafetensors) {
  const fs::path file = folder_ / "target/model.safetensors";
  fs::resize_file(file, fs::file_size(file) - 100);
  expect_error(run(""), ExitCode::kBadData, HasSubstr("target/model.safetensors"));
}

TEST_F(WrongInputs, ModelsOfDifferentShape) {
  const std::string config = text_of("base/config.json");
  const std::string key = "\"intermediate_size\": ";
  const std::size_t value = config.find(key) + key.size();
  put("base/config.json", fmt::format("{}1{}", config.substr(0, value), config.substr(value)));
  expect_error(run(""), ExitCode::kBadConfig, AllOf(HasSubstr("intermediate_size"), HasSubstr("base")));
}

TEST_F(WrongInputs, UnknownKey) {
  put("run.yaml", text_of("run.yaml") + "optim:\n  learning_rat: 1\n");
  expect_error(run(""), ExitCode::kBadConfig, AllOf(HasSubstr("run.yaml:8"), HasSubstr("optim.learning_rate")));
}

TEST_F(WrongInputs, CacheOfAnotherModel) {
  ASSERT_EQ(run("").code, ExitCode::kDone);
  fs::copy(folder_ / "base/model.safetensors", folder_ / "target", fs::copy_options::overwrite_existing);
  expect_error(run(another_run()), ExitCode::kBadConfig, AllOf(HasSubstr("run/cache"), HasSubstr("target")));
}

TEST_F(WrongInputs, FlippedCacheByte) {
  ASSERT_EQ(run("").code, ExitCode::kDone);
  const fs::path shard = folder_ / "run/cache/shard-000000.h5";
  flip_a_byte(shard, fs::file_size(shard) / 2);
  expect_error(run(another_run() + " --set train.steps=40"), ExitCode::kBadData,
               AllOf(HasSubstr("shard-000000.h5"), HasSubstr("chunk")));
}

TEST_F(WrongInputs, EmptyCorpus) {
  put("corpus.jsonl", "");
  expect_error(run(""), ExitCode::kBadData, HasSubstr("corpus.jsonl"));
}

TEST_F(WrongInputs, MalformedCorpusLine) {
  put("corpus.jsonl", text_of("corpus.jsonl") + "{\"conversations\": [\n");
  expect_error(run(""), ExitCode::kBadData, AllOf(HasSubstr("corpus.jsonl"), HasSubstr("25")));
}

TEST_F(WrongInputs, NoFeatures) {
  expect_error(run("--set adapter.features=0"), ExitCode::kBadConfig, HasSubstr("adapter.features"));
}

TEST_F(WrongInputs, Layer99) {
  expect_error(run("--layers 99"), ExitCode::kBadConfig, HasSubstr("layer 99 of a 4-layer model"));
}

TEST_F(WrongInputs, DiskTooSmall) {
  if (std::system("unshare -rm true 2>/dev/null") != 0) GTEST_SKIP() << "no mount namespaces here";
  const std::string disk = (folder_ / "disk").string();
  fs::create_directory(disk);
  const Ended ended =
      run_shell(fmt::format("unshare -rm sh -c 'mount -t tmpfs -o size=100k none {0} && mpirun -n 2 {1}/tadapt-dist "
                            "--config {2} --run {0}/run'",
                            disk, TADAPT_BINARY_DIR, (folder_ / "run.yaml").string()));
  expect_error(ended, ExitCode::kCannotWrite, HasSubstr(disk));
}

TEST_F(WrongInputs, UnwritableOutput) {
  put("file", "");
  expect_error(run(fmt::format("--run {}", (folder_ / "file/run").string())), ExitCode::kCannotWrite,
               HasSubstr("file/run"));
}

TEST_F(WrongInputs, AnotherConfigurationInARunDirectory) {
  ASSERT_EQ(run("").code, ExitCode::kDone);
  const std::string metrics = text_of("run/metrics.jsonl");
  expect_error(run("--set optim.learning_rate=0.5 --set train.steps=3"), ExitCode::kBadConfig,
               AllOf(HasSubstr("optim.learning_rate (was 0.0008, now 0.5)"), HasSubstr("train.steps (was 2, now 3)")));
  EXPECT_EQ(text_of("run/metrics.jsonl"), metrics);
  EXPECT_EQ(run("").code, ExitCode::kDone) << "the run was spoilt";
}

TEST_F(WrongInputs, FlippedCheckpointByteFallsBack) {
  ASSERT_EQ(run("--set checkpoint.every_steps=1").code, ExitCode::kDone);
  const fs::path newest = folder_ / "run/checkpoints/step-000000002/layer-001.safetensors";
  flip_a_byte(newest, fs::file_size(newest) - 10);
  const Ended ended = run("");
  EXPECT_EQ(ended.code, ExitCode::kDone) << ended.output;
  EXPECT_THAT(ended.output, AllOf(HasSubstr("layer-001.safetensors"), HasSubstr("resumed from step 1 of 2")));
}

}  // namespace
}  // namespace tadapt

// The commands after training, by the real program.
#include "tests/launcher/small_run.h"

namespace tadapt {
namespace {
using ::testing::AllOf;
using testing::Ended;
namespace fs = std::filesystem;
using ::testing::HasSubstr;

class Commands : public testing::SmallRun {
 protected:
  void SetUp() override {
    SmallRun::SetUp();
    ASSERT_EQ(run("").code, ExitCode::kDone);
  }
  /// A command on one rank with the run's folder as current folder.
  Ended command(const std::string& words) {
    return testing::run_shell(
        fmt::format("env -C {} {}/tadapt-dist {}", folder_.path().string(), TADAPT_BINARY_DIR, words));
  }
  std::string output(const std::string& words) {
    const Ended ended = command(words);
    EXPECT_EQ(ended.code, ExitCode::kDone) << ended.output;
    return ended.output;
  }
};

TEST_F(Commands, ASecondRunSaysThatItIsFinished) {
  EXPECT_THAT(run("").output, HasSubstr("already finished: 2 steps"));
}

TEST_F(Commands, EvalWritesTheSameNumbersForARunAndItsExports) {
  const std::string table = output("eval run --corpus corpus.jsonl");
  for (const char* row : {"base", "hybrid", "adapter", "target"}) EXPECT_THAT(table, HasSubstr(row));
  const std::string numbers = text_of("run/evaluation-corpus.json");
  EXPECT_THAT(numbers, AllOf(HasSubstr("token_kl"), HasSubstr("\"step\": 2"), HasSubstr("\"corpus\": \"")));
  EXPECT_FALSE(fs::exists(folder_ / "run/evaluation.json")) << "another corpus than the run's";
  for (const char* format : {"adapters", "authors"}) {
    output(fmt::format("export run --format {0} --out {0}", format));
    output(fmt::format("eval {0} --base base --target target --corpus corpus.jsonl --out {0}.json", format));
    EXPECT_EQ(text_of(fmt::format("{}.json", format)), numbers) << format;
    EXPECT_THAT(output(fmt::format("verify {}", format)), HasSubstr("no problems"));
    EXPECT_THAT(output(fmt::format("inspect {}", format)), HasSubstr("layer 3: D 128, F 32"));
  }
  expect_error(command("export run --out adapters"), ExitCode::kCannotWrite, HasSubstr("already there"));
  expect_error(command("export run --out turned --format authors --base target --target base"), ExitCode::kBadConfig,
               HasSubstr("trained for the base model"));
  expect_error(command("export run --out new --format hdf5"), ExitCode::kBadConfig, HasSubstr("adapters"));
}

TEST_F(Commands, FeaturesAreCollectedAndMistakesNamed) {
  const std::string words = "features --run run --corpus corpus.jsonl --out features";
  EXPECT_THAT(output(words + " --dry-run"), HasSubstr("128 features in 4 layers over 24 conversations (0 without"));
  EXPECT_FALSE(fs::exists(folder_ / "features"));
  EXPECT_THAT(output(words), AllOf(HasSubstr("reason=finished"), HasSubstr("tokens (100 %)")));
  EXPECT_TRUE(fs::exists(folder_ / "features/layer-003.h5"));
  EXPECT_THAT(output(words + " --export circuit-tracer"), HasSubstr("features is there"));
  EXPECT_TRUE(fs::exists(folder_ / "features/circuit-tracer/features/layer_3.bin"));
  expect_error(command(words + " --top 5"), ExitCode::kBadConfig, HasSubstr("choose another --out"));
  expect_error(command("features --run run --corpus corpus.jsonl"), ExitCode::kBadConfig, HasSubstr("--out"));
  expect_error(command(words + " --export json"), ExitCode::kBadConfig, HasSubstr("circuit-tracer-json, found 'json'"));
  expect_error(command(words + " --neuron-rule all"), ExitCode::kBadConfig, HasSubstr("positive or absolute"));
  expect_error(command(words + " --neurons -1"), ExitCode::kBadConfig,
               HasSubstr("--neurons: expected a number from 0"));
  expect_error(command("features --run nothing --corpus corpus.jsonl --out x"), ExitCode::kMissingInput,
               HasSubstr("nothing"));
}

TEST_F(Commands, InspectSaysWhatARunItsCacheAndItsCheckpointHold) {
  EXPECT_THAT(output("inspect run"),
              AllOf(HasSubstr("a run directory"), HasSubstr("adapter.features: 32"), HasSubstr("step-000000002")));
  EXPECT_THAT(output("inspect run/cache"), AllOf(HasSubstr("an activation cache"), HasSubstr("in 3 shards")));
  EXPECT_THAT(output("inspect run/checkpoints/step-000000002"), HasSubstr("a checkpoint of step 2"));
}

TEST_F(Commands, VerifyNamesEveryDamagedPlace) {
  EXPECT_THAT(output("verify run"), HasSubstr("no problems"));
  flip_a_byte(folder_ / "run/cache/shard-000001.h5", fs::file_size(folder_ / "run/cache/shard-000001.h5") / 2);
  const fs::path part = folder_ / "run/checkpoints/step-000000002/layer-002.safetensors";
  flip_a_byte(part, fs::file_size(part) - 1);
  const Ended ended = command("verify run");
  EXPECT_EQ(ended.code, ExitCode::kBadData);
  EXPECT_THAT(ended.output, AllOf(HasSubstr("shard-000001.h5"), HasSubstr("layer-002.safetensors")));
}

TEST_F(Commands, VerifyGoesOnBehindMissingFiles) {
  fs::remove(folder_ / "run/cache/shard-000000.h5");
  for (const char* layer : {"001", "003"})
    fs::remove(folder_ / fmt::format("run/checkpoints/step-000000002/layer-{}.safetensors", layer));
  const Ended ended = command("verify run");
  EXPECT_EQ(ended.code, ExitCode::kBadData);
  EXPECT_THAT(ended.output, AllOf(HasSubstr("shard-000000.h5"), HasSubstr("layer-001.safetensors"),
                                  HasSubstr("layer-003.safetensors"), HasSubstr("3 problems found")));
}

TEST_F(Commands, ARunCanBeMoved) {
  const std::string expected = output("eval run --corpus corpus.jsonl --partial none");
  const std::string numbers = text_of("run/evaluation-corpus.json");
  fs::rename(folder_ / "run", folder_ / "moved");
  EXPECT_THAT(output("verify moved"), AllOf(HasSubstr("moved/cache: reading"), HasSubstr("no problems")));
  EXPECT_THAT(output("inspect moved"), AllOf(HasSubstr("moved/cache"), ::testing::Not(HasSubstr("/run/"))));
  output("eval moved --corpus corpus.jsonl --partial none");
  EXPECT_EQ(text_of("moved/evaluation-corpus.json"), numbers);
  EXPECT_THAT(run(fmt::format("--run {}", (folder_ / "moved").string())).output, HasSubstr("already finished"));

  fs::remove_all(folder_ / "moved/cache");
  EXPECT_THAT(output("verify moved"),
              AllOf(HasSubstr("moved/cache: the cache is not there"), HasSubstr("no problems")));
  fs::remove_all(folder_ / "moved/checkpoints");
  expect_error(command("verify moved"), ExitCode::kBadData, HasSubstr("1 problem found"));
}

TEST_F(Commands, EvalSaysWhatIsWrongBeforeItEvaluates) {
  const Ended nowhere = command("eval run --corpus corpus.jsonl --out nowhere/x.json");
  expect_error(nowhere, ExitCode::kCannotWrite, HasSubstr("nowhere/x.json"));
  EXPECT_THAT(nowhere.output, ::testing::Not(HasSubstr("eval:")));
  std::string words;
  for (int i = 0; i < 3000; ++i) words += "one ";
  put("long.jsonl", "{\"conversations\": [{\"from\": \"human\", \"value\": \"a\"}, {\"from\": \"gpt\", \"value\": \"" +
                        words + "\"}]}\n");
  expect_error(command("eval run --corpus long.jsonl"), ExitCode::kBadConfig,
               AllOf(HasSubstr("max_position_embeddings"), HasSubstr("1024")));
}

TEST_F(Commands, RunsAreNotContinuedWhenAskedNotTo) {
  expect_error(run("--resume never"), ExitCode::kBadConfig, HasSubstr("holds checkpoints"));
}

TEST_F(Commands, DryRunsWriteNothing) {
  fs::remove_all(folder_ / "run");
  EXPECT_THAT(run("--dry-run").output, AllOf(HasSubstr("would be captured"), HasSubstr("2 ranks")));
  EXPECT_THAT(run("--layers 1,3 --dry-run").output, HasSubstr("2 layers"));
  EXPECT_FALSE(fs::exists(folder_ / "run"));
}

}  // namespace
}  // namespace tadapt

// The command line: which command runs, help, and errors that name the nearest word.
#include "launcher/cli.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "launcher/run_config.h"
#include "tests/support/errors.h"
#include "tests/support/temporary_directory.h"

namespace tadapt {
namespace {
using ::testing::AllOf;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::StartsWith;
using testing::TemporaryDirectory;
namespace fs = std::filesystem;

class Cli : public ::testing::Test {
 protected:
  /// Exit code of the command; what it printed is in printed_ and announced_.
  int run(const Words& words) {
    const auto into = [](std::string& text) { return [&text](const std::string& line) { text += line + "\n"; }; };
    return run_cli(words, {.files = files_,
                           .session = session_,
                           .signals = signals_,
                           .executable = fs::path(TADAPT_SOURCE_DIR) / "build/release/tadapt-dist",
                           .current_directory = folder_.path(),
                           .config_variable = "",
                           .print = into(printed_),
                           .announce = into(announced_)});
  }
  std::string printed(const Words& words) {
    EXPECT_EQ(run(words), 0);
    return printed_;
  }

  RealFileSystem files_;
  MpiSession session_;
  StopSignals signals_;
  TemporaryDirectory folder_;
  std::string printed_, announced_;
  const std::string toy_ = std::string(TADAPT_SOURCE_DIR) + "/data/toy";
};

TEST_F(Cli, HelpNamesEveryCommand) {
  const std::string help = printed({"--help"});
  for (const char* command : {"train", "capture", "inspect", "verify", "init"}) EXPECT_THAT(help, HasSubstr(command));
}

TEST_F(Cli, FlagsHaveOneHeading) {
  const std::string help = printed({"eval", "--help"});
  EXPECT_EQ(help.find("flags:"), help.rfind("flags:"));
}

TEST_F(Cli, EmptyWordsAreErrors) {
  EXPECT_ERROR(run({"--config", "", "--print-config"}), ConfigError, "train: --config is given, but empty");
  EXPECT_ERROR(run({"verify", ""}), ConfigError, "verify: PATH is given, but empty");
}

TEST_F(Cli, ASectionIsNoKey) {
  EXPECT_ERROR(run({"--set", "train=3"}), ConfigError, HasSubstr("train is a section: expected one of its keys"));
}

TEST_F(Cli, PathsAreUtf8) {
  EXPECT_ERROR(run({"--run", "inv\xff"}), ConfigError, HasSubstr("run.dir: expected text in UTF-8"));
  EXPECT_FALSE(fs::exists(folder_ / "inv\xff"));
}

TEST_F(Cli, ModelsHoldNoAdapters) {
  for (const char* command : {"eval", "export"})
    EXPECT_ERROR(run({command, toy_ + "/target", "--out", "x"}), MissingInputError,
                 HasSubstr("holds no adapters: it is a model"));
}

TEST_F(Cli, VersionIsOneLine) { EXPECT_THAT(printed({"--version"}), StartsWith("tadapt-dist ")); }

TEST_F(Cli, EveryCommandHasHelp) {
  for (const char* command : {"train", "capture", "inspect", "verify", "init"}) {
    printed_.clear();
    EXPECT_THAT(printed({command, "--help"}),
                AllOf(StartsWith(std::string("usage: tadapt-dist ") + command), HasSubstr("--help")));
  }
}

TEST_F(Cli, UnknownWordsNameTheNearest) {
  EXPECT_ERROR(run({"trian"}), ConfigError, "unknown command \"trian\"; did you mean train?");
  EXPECT_ERROR(run({"--layer", "all"}), ConfigError, "train: unknown flag \"--layer\"; did you mean --layers?");
  EXPECT_ERROR(run({"capture", "--max-token=5"}), ConfigError, EndsWith("did you mean --max-tokens?"));
}

TEST_F(Cli, MissingAndSurplusWordsAreErrors) {
  EXPECT_ERROR(run({"verify"}), ConfigError, "verify: usage: tadapt-dist verify PATH");
  EXPECT_ERROR(run({"verify", "a", "b"}), ConfigError, HasSubstr("more words than expected"));
  EXPECT_ERROR(run({"--layers"}), ConfigError, HasSubstr("layers"));
  EXPECT_ERROR(run({"--layers", "0", "--layers", "1"}), ConfigError, HasSubstr("layers"));
  EXPECT_ERROR(run({"--resume", "sometimes"}), ConfigError, "--resume: expected auto or never, found 'sometimes'");
}

TEST_F(Cli, WithoutConfigurationTheToyPairIsTakenLoudly) {
  const std::string config = printed({"--layers", "0-2", "--print-config"});
  EXPECT_THAT(announced_, AllOf(StartsWith("***"), HasSubstr("configs/toy.yaml")));
  RunOptions options;
  apply_yaml(options, config, "printed", "/");
  EXPECT_EQ(options.layers, "0-2");
  EXPECT_EQ(options.model.base, fs::path(TADAPT_SOURCE_DIR) / "data/toy/base");
  EXPECT_EQ(options.dir, folder_ / "runs/toy");
}

TEST_F(Cli, AnOptionCanBeSetWithoutAConfiguration) {
  RunOptions options;
  apply_yaml(options, printed({"--set", "train.steps=7", "--set=train.seed=3", "--print-config"}), "printed", "/");
  EXPECT_EQ(options.train.steps, 7);
  EXPECT_EQ(options.train.seed, 3u);
}

TEST_F(Cli, CaptureTakesNoToyPair) {
  EXPECT_ERROR(run({"capture"}), ConfigError, HasSubstr("model.base is not set"));
  EXPECT_EQ(announced_, "");
}

TEST_F(Cli, LayersOutsideTheModelAreAnError) {
  EXPECT_ERROR(run({"--layers", "99", "--dry-run"}), ConfigError, HasSubstr("layer 99 of a 4-layer model"));
  EXPECT_ERROR(run({"--layers", "5-3", "--dry-run"}), ConfigError, StartsWith("--layers: run.layers: expected"));
}

TEST_F(Cli, InitWritesAConfigurationThatLoads) {
  EXPECT_EQ(run({"init", "--base", toy_ + "/base", "--target", toy_ + "/target", "--corpus", toy_ + "/train.jsonl"}),
            0);
  const RunOptions options = load_options(files_, folder_ / "tadapt.yaml", {}, "/here");
  EXPECT_EQ(options.model.base, toy_ + "/base");
  EXPECT_EQ(options.corpus.train, toy_ + "/train.jsonl");
  EXPECT_EQ(options.corpus.format, ChatFormat::kDeepseek);
  EXPECT_EQ(options.corpus.max_sequence_tokens, 1024);
  EXPECT_EQ(options.adapter.features, 256);
  EXPECT_ERROR(run({"init", "--base", toy_ + "/base", "--target", toy_ + "/target", "--corpus", toy_ + "/train.jsonl"}),
               WriteError, HasSubstr("tadapt.yaml: is already there"));
}

TEST_F(Cli, InitQuotesNames) {
  const fs::path strange = folder_ / "a\nb: {";
  fs::copy(toy_ + "/base", strange);
  EXPECT_EQ(run({"init", "--base", strange.string(), "--target", toy_ + "/target", "--corpus", toy_ + "/train.jsonl"}),
            0);
  EXPECT_EQ(load_options(files_, folder_ / "tadapt.yaml", {}, "/here").model.base, strange);
}

TEST_F(Cli, InitSaysWhatIsMissing) {
  EXPECT_ERROR(run({"init", "--base", toy_ + "/base"}), ConfigError, "init: --target is not given");
  EXPECT_ERROR(run({"init", "--base", "nowhere", "--target", "t", "--corpus", "c"}), MissingInputError,
               AllOf(HasSubstr("--base"), HasSubstr("nowhere")));
  write_atomically(files_, folder_ / "empty.jsonl", "");
  EXPECT_ERROR(run({"init", "--base", toy_ + "/base", "--target", toy_ + "/target", "--corpus", "empty.jsonl"}),
               DataError, HasSubstr("empty.jsonl"));
  write_atomically(files_, folder_ / "list.json", "[{\"conversations\": []}]");
  EXPECT_ERROR(run({"init", "--base", toy_ + "/base", "--target", toy_ + "/target", "--corpus", "list.json"}),
               DataError, HasSubstr("list.json"));
  EXPECT_FALSE(files_.exists(folder_ / "tadapt.yaml"));
}

TEST_F(Cli, InspectSaysWhatAModelIs) {
  EXPECT_THAT(printed({"inspect", toy_ + "/target"}),
              AllOf(HasSubstr("a qwen2 model"), HasSubstr("layers 4, D 128, d_ff 384"), HasSubstr("fingerprint")));
}

TEST_F(Cli, PathsOfNoKnownKindAreErrors) {
  EXPECT_ERROR(run({"inspect", "nothing"}), MissingInputError, HasSubstr("nothing: there is no such path"));
  EXPECT_ERROR(run({"inspect", "."}), DataError, HasSubstr("it holds none of MANIFEST, manifest.json, run.json"));
  write_atomically(files_, folder_ / "plan.json", "{}");
  EXPECT_ERROR(run({"verify", "."}), MissingInputError, HasSubstr("an unfinished capture"));
}

TEST_F(Cli, VerifyPassesAModelAndNamesDamage) {
  EXPECT_THAT(printed({"verify", toy_ + "/target"}), HasSubstr("no problems"));
  fs::create_directories(folder_ / "cut");
  fs::copy(toy_ + "/target", folder_ / "cut");
  fs::resize_file(folder_ / "cut/model.safetensors", fs::file_size(folder_ / "cut/model.safetensors") - 1);
  EXPECT_ERROR(run({"verify", "cut"}), DataError, HasSubstr("1 problem found"));
  EXPECT_THAT(printed_, HasSubstr("model.safetensors"));
}

}  // namespace
}  // namespace tadapt

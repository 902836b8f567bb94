// Where a configuration comes from, what it may say, and that what is printed reads back.
#include "launcher/run_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "runtime/train/option_table.h"
#include "tests/support/errors.h"
#include "tests/support/temporary_directory.h"

namespace tadapt {
namespace {
using ::testing::AllOf;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;
using testing::TemporaryDirectory;
namespace fs = std::filesystem;

RunOptions read(const std::string& yaml) {
  RunOptions options;
  apply_yaml(options, yaml, "f.yaml", "/folder");
  return options;
}

nlohmann::json all_values(const RunOptions& options) {
  nlohmann::json values;
  for (const Option& option : option_table()) values[option.key] = option.value(options);
  return values;
}

/// Options in which no value is its default.
RunOptions unusual_options() {
  RunOptions options = read(R"(
run: {dir: "/runs/with space and \"quotes\" and # and ü", layers: "0,3,5-8"}
model: {base: /m/base, target: "relative: target", compute: fp32}
corpus: {train: /c/t.jsonl, validation: 'it''s', format: qwen, max_sequence_tokens: 77}
cache: {dir: /cache, rows: int8, max_tokens: 5, tokens_per_sequence: 6, drop_first_positions: 7,
        sequences_per_shard: 8, chunk_bytes: 5000, held_out_shards: 9}
adapter: {features: 10}
loss: {sparsity: 1.2345678901234567e-5, sparsity_scale: absolute}
optim: {learning_rate: 0.1, beta1: 0.2, beta2: 0.3, epsilon: 1e-30, weight_decay: 0.5, warmup_fraction: 0.6,
        clip_norm: 0}
)");
  options.train = {.compute = DType::kFloat32,
                   .batch_tokens = 64,
                   .reduction_leaves = 16,
                   .epochs = 1.0 / 3.0,
                   .steps = 11,
                   .order = RowOrder::kGlobal,
                   .window_tokens = 12,
                   .seed = 18446744073709551615u,
                   .evaluate_every_steps = 13,
                   .dead_after_tokens = 14};
  options.checkpoint = {.every_steps = 15, .keep = 16, .failures_allowed = 17};
  options.grid = {.layer_blocks = 18, .data_parallel = 19, .threads = 20, .timeout_seconds = 21};
  options.log = {.every_seconds = 2.5};
  return options;
}

TEST(PrintConfig, ReadsBackToTheSameOptions) {
  for (const RunOptions& options : {RunOptions{}, unusual_options()}) {
    const std::string text = print_config(options);
    EXPECT_EQ(all_values(read(text)), all_values(options)) << text;
  }
}

TEST(PrintConfig, ShowsEveryOptionWithItsMeaning) {
  const std::string text = print_config(RunOptions{});
  for (const Option& option : option_table()) EXPECT_THAT(text, HasSubstr(option.description));
}

TEST(Manual, IsTheCommittedFile) {
  RealFileSystem files;
  EXPECT_EQ(options_manual(), read_text(files, fs::path(TADAPT_SOURCE_DIR) / "docs/configuration.md"))
      << "docs/configuration.md is out of date: tadapt-dist --print-manual > docs/configuration.md";
}

TEST(Yaml, NothingIsAllDefaults) {
  for (const char* text : {"", "\n", "# only a comment\n", "---\n", "train:\nloss:\n", "{}"})
    EXPECT_EQ(all_values(read(text)), all_values(RunOptions{})) << text;
}

TEST(Yaml, UnknownKeysNameFileLineAndTheNearestKey) {
  EXPECT_ERROR(read("train:\n  steps: 5\n  batch_token: 4\n"), ConfigError,
               "f.yaml:3: unknown key \"train.batch_token\"; did you mean train.batch_tokens?");
  EXPECT_ERROR(read("optimm:\n  learning_rate: 1\n"), ConfigError,
               "f.yaml:2: unknown key \"optimm.learning_rate\"; did you mean optim.learning_rate?");
  EXPECT_ERROR(read("train:\n  learning_rate: 1\n"), ConfigError, EndsWith("did you mean optim.learning_rate?"));
}

TEST(Yaml, UnknownNamesOutsideSectionsAreErrors) {
  EXPECT_ERROR(read("train:\ntrian:\n"), ConfigError, "f.yaml:2: unknown key \"trian\"; did you mean train?");
  EXPECT_ERROR(read("batch_token: 5"), ConfigError,
               "f.yaml:1: unknown key \"batch_token\"; did you mean train.batch_tokens?");
}

TEST(Yaml, BadValuesNameKeyExpectedAndFound) {
  EXPECT_ERROR(read("adapter:\n\n  features: 0\n"), ConfigError,
               "f.yaml:3: adapter.features: expected an integer from 1 to 16777216, found \"0\"");
  EXPECT_ERROR(read("optim: {learning_rate: -1e-3}"), ConfigError,
               "f.yaml:1: optim.learning_rate: expected a float32 number above 0, found \"-1e-3\"");
  EXPECT_ERROR(read("train: {objective: bridgin}"), ConfigError,
               "f.yaml:1: train.objective: expected one of local, bridging, found \"bridgin\"");
  EXPECT_ERROR(read("cache: {rows: \"bf16\\nfp32\"}"), ConfigError,
               "f.yaml:1: cache.rows: expected one of bf16, fp32, int8, found \"bf16\\nfp32\"");
}

TEST(Yaml, KeysGivenTwiceAreErrors) {
  EXPECT_ERROR(read("train:\n  steps: 5\n  seed: 1\n  steps: 6\n"), ConfigError,
               "f.yaml:4: train.steps is already set in line 2");
  EXPECT_ERROR(read("train:\n  steps: 5\nloss:\n  sparsity: 1\ntrain:\n  seed: 6\n"), ConfigError,
               "f.yaml:5: train is already set in line 1");
}

TEST(Yaml, OtherShapesAreErrors) {
  EXPECT_ERROR(read("5"), ConfigError, "f.yaml:1: expected sections such as \"train:\", found \"5\"");
  EXPECT_ERROR(read("- 5"), ConfigError, "f.yaml:1: lists are not allowed");
  EXPECT_ERROR(read("train: 5"), ConfigError, "f.yaml:1: train: expected keys below it, found \"5\"");
  EXPECT_ERROR(read("train:\n  steps: [5]"), ConfigError, "f.yaml:2: train.steps: lists are not allowed");
  EXPECT_ERROR(read("train:\n  steps:\n    a: 5"), ConfigError,
               "f.yaml:3: train.steps: expected one value, found keys below it");
  EXPECT_ERROR(read("train:\n  steps:\n"), ConfigError, "f.yaml:2: train.steps has no value");
  EXPECT_ERROR(read("train:\n  steps: ~\n"), ConfigError, "f.yaml:2: train.steps has no value");
  EXPECT_ERROR(read("? {a: b}\n: c\n"), ConfigError, HasSubstr("f.yaml:1: "));
  EXPECT_ERROR(read(std::string("train: \"\\\0\n\"", 12)), ConfigError,
               AllOf(HasSubstr("f.yaml:1: unknown escape"), Not(HasSubstr("\n"))));
  EXPECT_ERROR(read("? [a]\n: c\n"), ConfigError, HasSubstr("f.yaml:1: "));
  EXPECT_ERROR(read("~: {steps: 1}"), ConfigError, HasSubstr("f.yaml:1: "));
  EXPECT_ERROR(read("\"\": {steps: 1}"), ConfigError, HasSubstr("f.yaml:1: "));
  EXPECT_ERROR(read("train: {steps: 1}\n---\ntrain: {steps: 2}\n"), ConfigError, "f.yaml: more than one YAML document");
}

TEST(Yaml, AnchorsAliasesAndTagsAreErrors) {
  EXPECT_ERROR(read("train: &a {steps: 5}"), ConfigError, "f.yaml:1: anchors (&name) are not allowed");
  EXPECT_ERROR(read("train:\n  steps: &a 5\n  seed: *a\n"), ConfigError, "f.yaml:2: anchors (&name) are not allowed");
  EXPECT_ERROR(read("train: *a"), ConfigError, HasSubstr("f.yaml:1: "));
  EXPECT_ERROR(read("train: {steps: !!int 5}"), ConfigError, HasSubstr("f.yaml:1: tags"));
}

TEST(Yaml, DeepNestingEndsAtOnce) {
  for (const char* piece : {"[", "{", "{a: ", "- ", "? ", "!!a ", "&a "}) {
    std::string text;
    for (int i = 0; i < 100'000; ++i) text += piece;
    EXPECT_ERROR(read(text), ConfigError, StartsWith("f.yaml:1: "));
  }
}

TEST(Yaml, BrokenTextIsAnErrorWithItsLine) {
  for (const char* text : {"train:\n  steps: \"5\n", "train:\n  steps: 5\n seed: 6\n", "train:\n\tsteps: 5\n", "a: {b",
                           "train: {steps: 1}}", "train: \"\\x\"", "@", "`"})
    EXPECT_ERROR(read(text), ConfigError, StartsWith("f.yaml:"));
}

TEST(Yaml, PathsStartAtItsFolder) {
  const RunOptions options = read("model: {base: ../base, target: /abs/target}\n");
  EXPECT_EQ(options.model.base, "/base");
  EXPECT_EQ(options.model.target, "/abs/target");
}

TEST(Override, IsCheckedLikeAFile) {
  RunOptions options;
  apply_override(options, parse_override("train.steps=200"), "/here");
  EXPECT_EQ(options.train.steps, 200);
  apply_override(options, parse_override("model.base=a=b"), "/here");
  EXPECT_EQ(options.model.base, "/here/a=b");
  EXPECT_ERROR(parse_override("train.steps"), ConfigError, "--set: expected key=value, found \"train.steps\"");
  EXPECT_ERROR(apply_override(options, parse_override("train.step=1"), ""), ConfigError,
               "--set: unknown key \"train.step\"; did you mean train.steps?");
  EXPECT_ERROR(apply_override(options, parse_override("train.steps="), ""), ConfigError,
               "--set: train.steps: expected an integer from 0 to 1099511627776, found \"\"");
  EXPECT_ERROR(apply_override(options, {"--layers", "run.layers", "8-5"}, ""), ConfigError,
               "--layers: run.layers: expected all or a list such as 0,3,5-8, found \"8-5\"");
}

TEST(Validate, ChecksOptionsAgainstEachOther) {
  RunOptions options = unusual_options();
  validate(options);
  options.train.reduction_leaves = 12;
  EXPECT_ERROR(validate(options), ConfigError, "train.reduction_leaves: expected a power of two, found 12");
  options.train.reduction_leaves = 8;
  options.train.batch_tokens = 1020;
  EXPECT_ERROR(validate(options), ConfigError,
               "train.batch_tokens: expected a multiple of train.reduction_leaves (8), found 1020");
}

TEST(RequireSet, NamesTheFirstEmptyOption) {
  RunOptions options = unusual_options();
  require_set(options, {"model.base", "corpus.train"});
  options.corpus.train.clear();
  EXPECT_ERROR(require_set(options, {"model.base", "corpus.train"}), ConfigError, "corpus.train is not set");
}

class ConfigFiles : public ::testing::Test {
 protected:
  fs::path put(const std::string& name, const std::string& text) {
    fs::create_directories((folder_ / name).parent_path());
    write_atomically(files_, folder_ / name, text);
    return folder_ / name;
  }
  RealFileSystem files_;
  TemporaryDirectory folder_;
};

TEST_F(ConfigFiles, AreLookedForInOrder) {
  ConfigSources sources{.flag = "", .environment = "", .current_directory = folder_.path()};
  EXPECT_EQ(find_config(files_, sources), std::nullopt);
  put("tadapt.yaml", "");
  EXPECT_EQ(find_config(files_, sources), folder_ / "tadapt.yaml");
  sources.environment = put("environment.yaml", "");
  EXPECT_EQ(find_config(files_, sources), folder_ / "environment.yaml");
  put("flag.yaml", "");
  sources.flag = "flag.yaml";
  EXPECT_EQ(find_config(files_, sources), folder_ / "flag.yaml");
}

TEST_F(ConfigFiles, NamedOnesMustExist) {
  put("tadapt.yaml", "");
  EXPECT_ERROR(find_config(files_, {.flag = "/no/such.yaml", .environment = "", .current_directory = folder_.path()}),
               MissingInputError, "/no/such.yaml: there is no configuration file (named by --config)");
  EXPECT_ERROR(find_config(files_, {.flag = "", .environment = "gone.yaml", .current_directory = folder_.path()}),
               MissingInputError, AllOf(HasSubstr("gone.yaml"), HasSubstr("$TADAPT_CONFIG")));
}

TEST_F(ConfigFiles, TheBundledOneIsFoundFromTheExecutable) {
  EXPECT_ERROR(bundled_config(files_, folder_ / "prefix/bin/tadapt-dist"), MissingInputError,
               HasSubstr("prefix/bin/tadapt-dist"));
  const fs::path source = put("tree/configs/toy.yaml", "");
  EXPECT_EQ(bundled_config(files_, folder_ / "tree/build/release/tadapt-dist"), source);
  const fs::path installed = put("prefix/share/tadapt/configs/toy.yaml", "");
  EXPECT_EQ(bundled_config(files_, folder_ / "prefix/bin/tadapt-dist"), installed);
}

TEST_F(ConfigFiles, AreLoadedWithOverridesAndFoldersFilledIn) {
  const fs::path file =
      put("project/seven.yaml", "model: {base: b, target: t}\ncorpus: {train: c}\ntrain: {steps: 1}\n");
  const RunOptions options = load_options(files_, file, {{"--set", "train.steps", "2"}}, "/here");
  EXPECT_EQ(options.train.steps, 2);
  EXPECT_EQ(options.model.base, folder_ / "project/b");
  EXPECT_EQ(options.dir, "/here/runs/seven");
  EXPECT_EQ(options.cache.dir, "/here/runs/seven/cache");
  EXPECT_EQ(load_options(files_, file, {{"--set", "run.dir", "mine"}}, "/here").cache.dir, "/here/mine/cache");
}

TEST_F(ConfigFiles, TooLargeOnesAreRefused) {
  const fs::path file = put("large.yaml", std::string((1 << 20) + 1, '#'));
  EXPECT_ERROR(load_options(files_, file, {}, "/here"), DataError, HasSubstr("large.yaml"));
}

class CommittedConfig : public ::testing::TestWithParam<const char*> {};

TEST_P(CommittedConfig, Loads) {
  RealFileSystem files;
  const fs::path file = fs::path(TADAPT_SOURCE_DIR) / "configs" / GetParam();
  const RunOptions options = load_options(files, file, {}, "/here");
  EXPECT_EQ(options.dir, fs::path("/here/runs") / file.stem());
}

INSTANTIATE_TEST_SUITE_P(Configs, CommittedConfig,
                         ::testing::Values("toy.yaml", "toy_bridging.yaml", "r1_distill_7b.yaml",
                                           "r1_distill_7b_bridging.yaml", "r1_distill_1p5b.yaml", "qwq_32b.yaml"),
                         [](const auto& tested) { return fs::path(tested.param).stem().string(); });

TEST(CommittedConfigs, AreAllTested) {
  int count = 0;
  for (const auto& entry : fs::directory_iterator(fs::path(TADAPT_SOURCE_DIR) / "configs"))
    count += entry.path().extension() == ".yaml";
  EXPECT_EQ(count, 7);
}

}  // namespace
}  // namespace tadapt

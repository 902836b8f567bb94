// generate and benchmark, by the real program.
#include "runtime/bundle/feature_set.h"
#include "tests/launcher/small_run.h"

namespace tadapt {
namespace {
using ::testing::AllOf;
using testing::Ended;
using ::testing::HasSubstr;
using ::testing::Not;
namespace fs = std::filesystem;

class Generate : public testing::SmallRun {
 protected:
  void SetUp() override {
    SmallRun::SetUp();
    std::ifstream questions(toy_ / "questions.jsonl");
    std::string line, lines;
    for (int i = 0; i < 12 && std::getline(questions, line); ++i) lines += line + "\n";
    put("questions.jsonl", lines);
  }
  /// A command with the folder as current folder, on the CPU.
  Ended command(int ranks, const std::string& words) {
    return testing::run_shell(fmt::format("env -C {} mpirun -n {} {}/tadapt-dist {} --device cpu",
                                          folder_.path().string(), ranks, TADAPT_BINARY_DIR, words));
  }
  /// Its lines but for the first, which says whose they are.
  std::string responses_of(const std::string& file) {
    const std::string text = text_of(file);
    return text.substr(text.find('\n') + 1);
  }
  void refuses(const std::string& words, ExitCode code, const ::testing::Matcher<std::string>& message) {
    expect_error(command(2, words), code, message);
  }
};

TEST_F(Generate, WritesTheSameLinesForAnyRanks) {
  const std::string words = "generate --target target --prompts questions.jsonl --samples 2 --max-new-tokens 60";
  for (const int ranks : {1, 3}) {
    const Ended ended = command(ranks, fmt::format("{} --out {}.jsonl", words, ranks));
    ASSERT_EQ(ended.code, ExitCode::kDone) << ended.output;
  }
  const std::string lines = text_of("1.jsonl");
  EXPECT_EQ(std::ranges::count(lines, '\n'), 24);
  EXPECT_EQ(lines, text_of("3.jsonl"));
  const Ended printed = command(2, "generate --model base --base base --prompt 'Compute 3+4 mod 10.' --temperature 0");
  EXPECT_EQ(printed.code, ExitCode::kDone) << printed.output;
  EXPECT_THAT(printed.output, AllOf(HasSubstr("\"value\":\"Compute 3+4 mod 10.\""), HasSubstr("The answer is 7.")));
  const Ended streamed =
      command(2, "generate --model base --base base --prompt 'Compute 3+4 mod 10.' --temperature 0 --stream");
  EXPECT_EQ(streamed.code, ExitCode::kDone) << streamed.output;
  EXPECT_EQ(streamed.output, "<think>\n</think>\nThe answer is 7.\n");
}

TEST_F(Generate, BenchmarkOfARunIsTheSameForAnyRanksAndReadsAsACorpus) {
  ASSERT_EQ(run("").code, ExitCode::kDone);
  const std::string words = "benchmark run --questions questions.jsonl --samples 2 --max-new-tokens 80";
  const Ended ended = command(2, words);
  ASSERT_EQ(ended.code, ExitCode::kDone) << ended.output;
  for (const char* part : {"base", "hybrid", "adapter", "target", "recovered from the hybrid"})
    EXPECT_THAT(ended.output, HasSubstr(part));
  const Ended again = command(1, words + " --out again");
  ASSERT_EQ(again.code, ExitCode::kDone) << again.output;
  for (const char* file : {"benchmark.json", "responses-base.jsonl", "responses-hybrid.jsonl",
                           "responses-adapter.jsonl", "responses-target.jsonl"}) {
    const std::string text = text_of(std::string("again/") + file);
    EXPECT_THAT(text, Not(::testing::IsEmpty())) << file;
    EXPECT_EQ(text_of(std::string("run/benchmark-questions/") + file), text) << file;
  }
  // Responses of models that another benchmark has asked already are taken up.
  fs::create_directory(folder_ / "third");
  for (const char* model : {"base", "hybrid", "target"})
    fs::copy(folder_ / fmt::format("again/responses-{}.jsonl", model), folder_ / "third");
  const Ended third = command(1, words + " --out third");
  EXPECT_EQ(third.code, ExitCode::kDone) << third.output;
  EXPECT_EQ(text_of("third/benchmark.json"), text_of("again/benchmark.json"));
  const Ended kl = command(1, "eval run --corpus again/responses-target.jsonl --partial none");
  EXPECT_EQ(kl.code, ExitCode::kDone) << kl.output;
  EXPECT_THAT(kl.output, HasSubstr("24 sequences"));
  refuses(words + " --seed 1", ExitCode::kBadConfig, HasSubstr("responses of another job"));
}

TEST_F(Generate, SaysWhatIsWrong) {
  put("empty.jsonl", "");
  put("other.jsonl", "{\"text\": \"a\"}\n");
  std::string words;
  for (int i = 0; i < 1200; ++i) words += "one ";
  put("long.jsonl", "{\"prompt\": \"a\"}\n{\"prompt\": \"" + words + "\"}\n");
  const std::string generate = "generate --target target ";
  refuses(generate + "--prompts empty.jsonl", ExitCode::kBadData, HasSubstr("empty.jsonl"));
  refuses(generate + "--prompts other.jsonl", ExitCode::kBadData, HasSubstr("line 1: question"));
  refuses(generate + "--prompts long.jsonl", ExitCode::kBadData,
          AllOf(HasSubstr("long.jsonl: line 2: "), HasSubstr("has 1024 positions")));
  refuses(generate + "--prompt a --prompt b --stream", ExitCode::kBadConfig, HasSubstr("found 2 prompts"));
  refuses(generate + "--prompt a --stream --out x.jsonl", ExitCode::kBadConfig, HasSubstr("and --out"));
  refuses(generate + "--prompts nowhere.jsonl", ExitCode::kMissingInput, HasSubstr("nowhere.jsonl"));
  refuses(generate, ExitCode::kBadConfig, HasSubstr("either --prompt or --prompts"));
  refuses(generate + "--prompt a --model tagret", ExitCode::kBadConfig, HasSubstr("hybrid, adapter or target"));
  refuses(generate + "--prompt a --model adapter", ExitCode::kBadConfig, HasSubstr("with the adapters"));
  refuses(generate + "--prompt a --model hybrid", ExitCode::kBadConfig, HasSubstr("model.base"));
  refuses(generate + "--prompt a --temperature=-1", ExitCode::kBadConfig, HasSubstr("--temperature"));
  refuses(generate + "--prompt a --top-p 1.5", ExitCode::kBadConfig, HasSubstr("--top-p"));
  refuses(generate + "--prompt a --samples 0", ExitCode::kBadConfig, HasSubstr("--samples"));
  refuses("generate target --prompt a", ExitCode::kMissingInput, HasSubstr("holds no adapters"));
  refuses("benchmark --base base --target target", ExitCode::kBadConfig, HasSubstr("--questions"));
  const std::string benchmark = "benchmark --base base --target target --questions ";
  refuses(benchmark + "corpus.jsonl", ExitCode::kBadData, HasSubstr("corpus.jsonl: line 1: question"));
  refuses(benchmark + "nowhere.jsonl", ExitCode::kMissingInput, HasSubstr("nowhere.jsonl"));
  put("torn.jsonl", text_of("questions.jsonl") + "{\"question\": ");
  refuses(benchmark + "torn.jsonl", ExitCode::kBadData, HasSubstr("torn.jsonl: line 13: not valid JSON"));
  put("unanswered.jsonl", "{\"question\": \"a\"}\n");
  refuses(benchmark + "unanswered.jsonl", ExitCode::kBadData, HasSubstr("unanswered.jsonl: line 1: answer"));
  refuses(benchmark + "questions.jsonl --samples 0", ExitCode::kBadConfig, HasSubstr("--samples"));
}

TEST_F(Generate, EditedAdaptersAnswerAndTellWhatWasEdited) {
  ASSERT_EQ(run("").code, ExitCode::kDone);
  RealFileSystem files;
  const AdapterBundle bundle = load_adapters(files, folder_ / "run", [](const std::string&) {});
  FeatureSet set{.name = "few", .rule = "by hand", .adapters = fingerprint(bundle), .features = {{0, {0, 1}}}};
  write_feature_set(files, folder_ / "few.json", set);
  const std::string words = "benchmark run --questions questions.jsonl --max-new-tokens 40 ";
  ASSERT_EQ(command(2, words + "--keep-only few.json --without-decoder-bias").code, ExitCode::kDone);
  EXPECT_THAT(text_of("run/benchmark-questions-only-few-without-bias/benchmark.json"),
              AllOf(HasSubstr("keep only few (2 features"), HasSubstr("without decoder bias")));
  const Ended exported = testing::run_shell(
      fmt::format("env -C {} {}/tadapt-dist export run --keep-only few.json --without-decoder-bias --format authors "
                  "--out kept",
                  folder_.path().string(), TADAPT_BINARY_DIR));
  ASSERT_EQ(exported.code, ExitCode::kDone) << exported.output;
  ASSERT_EQ(command(1,
                    "benchmark kept --base base --target target --questions questions.jsonl --max-new-tokens 40 "
                    "--out again")
                .code,
            ExitCode::kDone);
  EXPECT_EQ(responses_of("again/responses-adapter.jsonl"),
            responses_of("run/benchmark-questions-only-few-without-bias/responses-adapter.jsonl"));
  set.features = {{0, {9999}}};
  write_feature_set(files, folder_ / "many.json", set);
  refuses(words + "--remove many.json", ExitCode::kBadData, HasSubstr("feature 9999 of layer 0"));
  refuses(words + "--keep-only few.json --add-to-target few.json", ExitCode::kBadConfig, HasSubstr("exclude"));
  refuses(words + "--scale much", ExitCode::kBadConfig, HasSubstr("--scale: expected a number"));
  refuses("generate --target target --prompt a --remove few.json", ExitCode::kBadConfig, HasSubstr("name a run"));
}

}  // namespace
}  // namespace tadapt

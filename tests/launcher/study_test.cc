// select and study, by the real program.
#include "runtime/bundle/feature_set.h"
#include "tests/launcher/small_run.h"

namespace tadapt {
namespace {
using ::testing::AllOf;
using testing::Ended;
using ::testing::HasSubstr;
using ::testing::Not;

class Study : public testing::SmallRun {
 protected:
  void SetUp() override {
    SmallRun::SetUp();
    std::ifstream questions(toy_ / "questions.jsonl");
    std::string line, lines;
    for (int i = 0; i < 8 && std::getline(questions, line); ++i) lines += line + "\n";
    put("questions.jsonl", lines);
  }
  /// A command with the folder as current folder.
  Ended command(int ranks, const std::string& words) {
    return testing::run_shell(fmt::format("env -C {} CUDA_VISIBLE_DEVICES= mpirun -n {} {}/tadapt-dist {}",
                                          folder_.path().string(), ranks, TADAPT_BINARY_DIR, words));
  }
  void refuses(const std::string& words, ExitCode code, const ::testing::Matcher<std::string>& message) {
    expect_error(command(2, words), code, message);
  }
};

TEST_F(Study, FeaturesAreSelectedAndStudied) {
  ASSERT_EQ(run("").code, ExitCode::kDone);
  ASSERT_EQ(command(2, "features --run run --corpus corpus.jsonl --out features").code, ExitCode::kDone);
  const Ended counted = command(1, "select features 'active() - template()' --out some.json");
  ASSERT_EQ(counted.code, ExitCode::kDone) << counted.output;
  EXPECT_THAT(counted.output,
              AllOf(HasSubstr("of 128 ("), HasSubstr("layer   3: "), Not(HasSubstr("promoted tokens"))));
  RealFileSystem files;
  FeatureSet set = read_feature_set(files, folder_ / "some.json");
  EXPECT_EQ(set.name, "some");
  EXPECT_GT(set.size(), 4);
  set.features = {{0, {1, 5, 6}}, {3, {30}}};
  write_feature_set(files, folder_ / "some.json", set);
  EXPECT_THAT(command(1, "select features hesitation").output,
              AllOf(HasSubstr("(promotes(wait hmm but alternatively, top=1) | template(share=0.8)): "),
                    HasSubstr("by the number of promoted tokens looked at: 1: ")));
  refuses("select features 'promotes(wait'", ExitCode::kBadConfig, HasSubstr("rule, character 14: expected"));
  refuses("select run 'active()'", ExitCode::kMissingInput, HasSubstr("features.json"));

  const std::string study = "study hesitation run --features features --questions questions.jsonl ";
  const std::string small =
      study + "--max-new-tokens 8 --output-rule 'set(some.json)' --template-rule 'region(bos)' --controls 2 ";
  const Ended studied = command(2, small);
  ASSERT_EQ(studied.code, ExitCode::kDone) << studied.output;
  EXPECT_THAT(studied.output, AllOf(HasSubstr("| adapter-without-both |"), HasSubstr("| target-less-control-2 |")));
  for (const char* file : {"study.json", "study.csv", "study.md", "study.html", "sets/both.json"})
    EXPECT_FALSE(text_of(std::string("run/study-hesitation/") + file).empty()) << file;
  const std::string numbers = text_of("run/study-hesitation/study.json");
  EXPECT_THAT(command(1, small).output, HasSubstr("| adapter-without-both |"));
  EXPECT_EQ(text_of("run/study-hesitation/study.json"), numbers);
  refuses("study sleep run", ExitCode::kBadConfig, HasSubstr("expected hesitation, found 'sleep'"));
  refuses("study hesitation run --questions questions.jsonl", ExitCode::kBadConfig, HasSubstr("--features"));
  refuses(study + "--controls 1,x", ExitCode::kBadConfig, HasSubstr("--controls: expected numbers above 0"));
  refuses(study + "--output-rule 'active() - active()' --template-rule 'active() - active()'", ExitCode::kBadConfig,
          HasSubstr("no feature is meant by"));
  refuses(study + "--remove some.json", ExitCode::kBadConfig, HasSubstr("--remove"));
}

}  // namespace
}  // namespace tadapt

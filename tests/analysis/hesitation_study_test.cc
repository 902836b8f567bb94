// The hesitation study on a small random pair: what its models must have in common, ranks, interruptions, refusals; and
// the claims that numbers decide.
#include "runtime/analysis/hesitation_study.h"

#include <gmock/gmock.h>

#include "runtime/analysis/hesitation_report.h"
#include "tests/analysis/features_fixture.h"

namespace tadapt {
namespace {
using ::testing::HasSubstr;

class HesitationStudyTest : public testing::FeaturesFixture {
 protected:
  void SetUp() override {
    FeaturesFixture::SetUp();
    if (IsSkipped()) return;
    ASSERT_EQ(collect(request("store")), FeatureOutcome::kDone);
    std::ifstream toy(std::filesystem::path(TADAPT_SOURCE_DIR) / "data/toy/questions.jsonl");
    std::string questions;
    std::string line;
    for (int i = 0; i < 5 && std::getline(toy, line); ++i) questions += line + "\n";
    write_atomically(files_, folder_ / "questions.jsonl", questions);
    const FeatureStore store(files_, folder_ / "store");
    const StoredTokens tokens = store.tokens();
    output_ = fmt::format("promotes(\"{}\" \"{}\", top=1)", tokens.text(store.layer(0).feature(0).promoted[0].id),
                          tokens.text(store.layer(2).feature(1).promoted[0].id));
  }

  HesitationRequest study(const std::string& out) {
    return {.questions = {.options = options_,
                          .questions = folder_ / "questions.jsonl",
                          .samples = 2,
                          .generation = {.max_new_tokens = 10, .seed = 3},
                          .directory = folder_ / out},
            .adapters = folder_ / "adapters",
            .features = folder_ / "store",
            .rules = {.output = output_, .template_rule = "active() - active()", .control_times = {1.0, 100.0}}};
  }
  HesitationStudy run(const HesitationRequest& request, Communicator& world) {
    Context context = Context::cpu(1);
    const RunEnvironment environment{.files = files_,
                                     .world = world,
                                     .context = context,
                                     .who = "test",
                                     .print = [&](const std::string& text) { note(text); },
                                     .stop_requested = [] { return false; },
                                     .heartbeat = [](const std::string&) {}};
    return run_hesitation_study(request, environment);
  }
  HesitationStudy run(const HesitationRequest& request) {
    SelfCommunicator self;
    return run(request, self);
  }

  std::string output_;
};

INSTANTIATE_TEST_SUITE_P(Cpu, HesitationStudyTest, ::testing::Values(Device::kCpu), testing::device_name);

TEST_P(HesitationStudyTest, EveryModelIsAskedAndSetsAreKept) {
  const HesitationStudy found = run(study("study"));
  std::vector<std::string> names;
  for (const StudyRow& row : found.rows) names.push_back(row.name);
  EXPECT_EQ(names, (std::vector<std::string>{"target", "hybrid", "adapter", "adapter-without-output",
                                             "adapter-without-template", "adapter-without-both",
                                             "adapter-without-control-1", "hybrid-with-output", "hybrid-with-template",
                                             "hybrid-with-both", "hybrid-with-control-1", "target-less-output",
                                             "target-less-template", "target-less-both", "target-less-control-1"}));
  EXPECT_THAT(said_, HasSubstr("control-100 is left out"));
  EXPECT_GT(found.find("adapter-without-both")->features, 0);
  EXPECT_EQ(found.find("adapter-without-control-1")->features, found.find("adapter-without-both")->features);
  for (const char* name : {"output", "template", "both", "control-1"})
    EXPECT_EQ(read_feature_set(files_, folder_ / "study/sets" / (std::string(name) + ".json")).adapters,
              fingerprint(bundle_));
  // A set of nothing: taken away it changes nothing; alone on the hybrid it is the hybrid; so is it on the target.
  for (const char* name : {"adapter-without-template", "hybrid-with-template", "target-less-template"}) {
    const StudyRow& row = *found.find(name);
    EXPECT_EQ(row.features, 0);
    for (const ResponseMetric metric : kResponseMetrics) {
      EXPECT_EQ(row.of(metric).difference.value, 0.0) << name;
      EXPECT_EQ(row.of(metric).value.value, found.find(row.against)->of(metric).value.value) << name;
    }
  }
  EXPECT_EQ(found.sets.sensitivity.size(), 1);
}

TEST_P(HesitationStudyTest, RanksAndInterruptionsChangeNothing) {
  const HesitationStudy one = run(study("one"));
  const std::string expected = to_json(one).dump();
  testing::run_ranks(3, [&](Communicator& world) {
    const HesitationStudy found = run(study("three"), world);
    if (world.rank() == 0) {
      EXPECT_EQ(to_json(found).dump(), expected);
    }
  });
  expect_same_files("one", "three");
  files_.remove(folder_ / "three/responses-hybrid-with-both.jsonl");
  EXPECT_EQ(to_json(run(study("three"))).dump(), expected);
  expect_same_files("one", "three");
  HesitationRequest other = study("three");
  other.questions.generation.seed = 4;
  EXPECT_ERROR(run(other), ConfigError, HasSubstr("responses-target.jsonl"));
}

TEST_P(HesitationStudyTest, WhatDoesNotFitIsRefused) {
  HesitationRequest wrong = study("study");
  wrong.rules.output = "active(from=1) - active()";
  EXPECT_ERROR(run(wrong), ConfigError, HasSubstr("no feature is meant by"));
  wrong.rules.output = "promotes(wait";
  EXPECT_ERROR(run(wrong), ConfigError, HasSubstr("rule, character"));
  AdapterBundle other = testing::random_bundle({0, 2}, {model_.width, testing::kTestFeatures}, 0.2f);
  other.base_fingerprint = bundle_.base_fingerprint;
  other.target_fingerprint = bundle_.target_fingerprint;
  export_adapters(files_, other, folder_ / "other");
  HesitationRequest of_others = study("study");
  of_others.adapters = folder_ / "other";
  EXPECT_ERROR(run(of_others), ConfigError, HasSubstr(fingerprint(other)));
  EXPECT_FALSE(files_.exists(folder_ / "study"));
}

/// A study of numbers: rates and lengths without both sets and without the control, of 10 and 100.
HesitationStudy made_up(double rate, double control_rate, double tokens, double control_tokens) {
  const auto score = [](double value, double reference) {
    const double change = (value - reference) / reference;
    return PairedScore{.value = {value, value, value},
                       .difference = {value - reference, value - reference - 0.1, value - reference + 0.1},
                       .relative_change = {change, change - 0.01, change + 0.01}};
  };
  const auto row = [&](const char* name, const char* against, double hesitation, double length) {
    StudyRow made{.name = name, .part = {}, .against = against, .set = {}};
    made.scores[static_cast<std::size_t>(ResponseMetric::kHesitationRate)] = score(hesitation, 10.0);
    made.scores[static_cast<std::size_t>(ResponseMetric::kMeanTokens)] = score(length, 100.0);
    return made;
  };
  HesitationStudy study;
  study.rows = {row("adapter-without-both", "adapter", rate, tokens),
                row("adapter-without-output", "adapter", rate + 1.5, tokens),
                row("adapter-without-control-1", "adapter", control_rate, control_tokens),
                row("hybrid-with-both", "hybrid", 18.0, 100.0),
                row("hybrid-with-control-1", "hybrid", 11.0, 100.0),
                row("target-less-both", "target", 6.0, 100.0),
                row("target-less-control-1", "target", 9.0, 100.0)};
  return study;
}

std::string holding(const HesitationStudy& study) {
  std::string marks;
  for (const StudyClaim& claim : claims_of(study)) marks += claim.holds ? '1' : '0';
  return marks;
}

TEST(HesitationClaims, FollowFromTheNumbers) {
  EXPECT_EQ(holding(made_up(1.0, 9.0, 60.0, 95.0)), "1111111111");
  EXPECT_EQ(holding(made_up(2.0, 9.0, 60.0, 95.0)), "1110111111");
  EXPECT_EQ(holding(made_up(3.1, 9.0, 60.0, 95.0)), "0110111111");
  EXPECT_EQ(holding(made_up(1.0, 6.9, 60.0, 95.0)), "1111110111");
  EXPECT_EQ(holding(made_up(1.0, 13.1, 60.0, 85.0)), "1111110011");
  EXPECT_EQ(holding(made_up(1.0, 9.0, 99.5, 100.0)), "1011011111");
  HesitationStudy without_control = made_up(1.0, 9.0, 60.0, 95.0);
  std::erase_if(without_control.rows, [](const StudyRow& one) { return one.name == "adapter-without-control-1"; });
  EXPECT_EQ(holding(without_control), "111111");
}

}  // namespace
}  // namespace tadapt

// A collection has the same bytes whoever makes it and however often it is interrupted; what does not fit is refused.
#include "tests/analysis/features_fixture.h"

namespace tadapt {
namespace {
using ::testing::AllOf;
using ::testing::HasSubstr;

/// What does not depend on where it was computed.
class FeatureInterruptions : public testing::FeaturesFixture {};
INSTANTIATE_TEST_SUITE_P(Device, FeatureInterruptions, ::testing::Values(Device::kCpu), testing::device_name);

TEST_P(FeatureInterruptions, RanksAndBatchSizesChangeNoByte) {
  FeatureRequest first = request("reference");
  first.neurons = 5;
  first.circuit_tracer = CircuitTracerFiles::kPacked;
  collect(first);
  for (const auto& [ranks, batch_tokens] : {std::pair<int, std::int64_t>{1, 1}, {2, 100}, {4, 4096}}) {
    FeatureRequest other = first;
    other.out = folder_ / fmt::format("ranks-{}", ranks);
    other.batch_tokens = batch_tokens;
    collect_on_ranks(ranks, other);
    expect_same_files("reference", fmt::format("ranks-{}", ranks));
  }
}

TEST_P(FeatureInterruptions, KilledAtAnyMomentItGoesOnAndCountsNothingTwice) {
  collect(request("reference"));
  FeatureRequest interrupted = request("interrupted");
  interrupted.save_seconds = 0.0;
  interrupted.batch_tokens = 1;
  int kills = 0;
  // Each start dies a little later, on another number of ranks, and finds what those before have saved.
  for (int kill_at = 2;; ++kill_at) {
    try {
      const int ranks = 1 + kill_at % 3;
      collect_on_ranks(ranks, interrupted, kill_at);
      break;
    } catch (...) {
      ++kills;
    }
    ASSERT_LT(kill_at, 200);
  }
  EXPECT_GE(kills, 3);
  expect_same_files("reference", "interrupted");
}

TEST_P(FeatureInterruptions, AStopSavesAndTheNextStartGoesOn) {
  collect(request("reference"));
  FeatureRequest stopped = request("stopped");
  stopped.meeting_seconds = 0.0;
  stopped.batch_tokens = 1;
  SelfCommunicator self;
  Context context = Context::cpu(1);
  int asked = 0;
  EXPECT_EQ(collect_on(stopped, self, context, 0, [&] { return ++asked == 4; }), FeatureOutcome::kStopped);
  EXPECT_EQ(files_below("stopped").size(), 1u) << "one partial result";
  const std::string old_part = files_below("stopped").begin()->second;
  EXPECT_THAT(old_part.substr(0, 100), HasSubstr(R"("done":"0-4")"));

  // A second stop; then what the first had saved lies beside what replaced it, as after a kill between the two.
  asked = 0;
  EXPECT_EQ(collect_on(stopped, self, context, 0, [&] { return ++asked == 3; }), FeatureOutcome::kStopped);
  write_atomically(files_, folder_ / "stopped/partial/000000-000000.part", old_part);
  EXPECT_EQ(files_below("stopped").size(), 2u);
  EXPECT_EQ(collect(stopped), FeatureOutcome::kDone);
  expect_same_files("reference", "stopped");
}

TEST_P(FeatureInterruptions, DamagedPartialResultsAreDoneAgain) {
  collect(request("reference"));
  FeatureRequest stopped = request("stopped");
  stopped.meeting_seconds = 0.0;
  stopped.batch_tokens = 1;
  SelfCommunicator self;
  Context context = Context::cpu(1);
  int asked = 0;
  collect_on(stopped, self, context, 0, [&] { return ++asked == 4; });
  std::string part = files_below("stopped").begin()->second;
  part[part.size() / 2] = static_cast<char>(part[part.size() / 2] ^ 4);
  write_atomically(files_, folder_ / "stopped/partial/000000-000000.part", part);
  collect(stopped);
  EXPECT_THAT(said_, HasSubstr("000000-000000.part: its bytes are not those that were written: left out"));
  expect_same_files("reference", "stopped");
}

TEST_P(FeatureInterruptions, WhatIsThereIsLeftAndOtherCollectionsAreRefused) {
  collect(request("out"));
  said_.clear();
  collect(request("out"));
  EXPECT_THAT(said_, HasSubstr("out is there"));
  FeatureRequest other = request("out");
  other.records.seed = 6;
  EXPECT_ERROR(collect(other), ConfigError,
               AllOf(HasSubstr("out: holds a collection over another corpus"), HasSubstr("choose another --out")));
  const AdapterBundle adapters = testing::random_bundle({0, 2}, {model_.width, 12}, 0.2f);
  export_adapters(files_, adapters, folder_ / "others");
  FeatureRequest of_others = request("out");
  of_others.adapters = folder_ / "others";
  EXPECT_ERROR(collect(of_others), ConfigError, HasSubstr("out: holds features of transcoder"));
  // Also before it is whole.
  other.out = folder_ / "stopped";
  SelfCommunicator self;
  Context context = Context::cpu(1);
  collect_on(other, self, context, 0, [] { return true; });
  other.records.seed = 7;
  EXPECT_ERROR(collect(other), ConfigError, HasSubstr("partial: belongs to a collection with other adapters"));
}

TEST_P(FeatureInterruptions, ACorpusThatDoesNotThinkIsRefused) {
  write_atomically(files_, folder_ / "corpus.jsonl",
                   R"({"conversations":[{"from":"human","value":"Hm"},{"from":"gpt","value":"Ok"}]})"
                   "\n");
  EXPECT_ERROR(collect(request("out")), DataError,
               AllOf(HasSubstr("corpus.jsonl: none of its 1 conversations"), HasSubstr("<think>")));
  write_atomically(files_, folder_ / "corpus.jsonl", "");
  EXPECT_ERROR(collect(request("out")), DataError, HasSubstr("corpus.jsonl"));
}

}  // namespace
}  // namespace tadapt

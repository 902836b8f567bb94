// Which points a study has, and which runs go on together.
#include "runtime/sweep/sweep_plan.h"

#include <gmock/gmock.h>

#include "tests/support/errors.h"

namespace tadapt {
namespace {
using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::string names_of(const Cohort& cohort) {
  std::string names = fmt::format("from {}:", cohort.front().before.step);
  for (const PlannedRun& run : cohort) {
    EXPECT_EQ(run.before.step, cohort.front().before.step);
    names += fmt::format(" {}", run.options.dir.filename().string());
  }
  return names;
}

std::vector<std::string> planned(const std::vector<std::pair<SweepPoint, std::vector<std::int64_t>>>& runs,
                                 std::size_t most = 0) {
  std::vector<Standing> standings;
  for (const auto& [point, steps] : runs) standings.push_back({options_of(point, RunOptions{}, "study"), steps});
  std::vector<std::string> names;
  for (const Cohort& cohort : cohorts_of(std::move(standings), 100, most)) names.push_back(names_of(cohort));
  return names;
}

const SweepPoint kSmall{64, 0.1, 0}, kMiddle{128, 0.1, 0}, kLarge{256, 0.1, 0}, kOtherSeed{64, 0.1, 1};

TEST(SweepPoints, AreAllCombinationsInOrder) {
  const std::vector<SweepPoint> points = points_of({{512, 64}, {1e-3, 1e-4}, {7, 8}});
  ASSERT_EQ(points.size(), 8u);
  EXPECT_EQ(points.front(), (SweepPoint{64, 1e-4, 7}));
  EXPECT_EQ(points.back().name(), "d512-l0.001-s8");
}

TEST(SweepPoints, RefuseWhatNoRunCanHave) {
  EXPECT_ERROR(points_of({{}, {1.0}, {0}}), ConfigError, HasSubstr("--dict"));
  EXPECT_ERROR(points_of({{8, 8}, {1.0}, {0}}), ConfigError, HasSubstr("--dict: a value is given twice"));
  EXPECT_ERROR(points_of({{0}, {1.0}, {0}}), ConfigError, HasSubstr("found 0"));
  EXPECT_ERROR(points_of({{8}, {-1.0}, {0}}), ConfigError, HasSubstr("--l1"));
  EXPECT_ERROR(points_of({{8}, {NAN}, {0}}), ConfigError, HasSubstr("--l1"));
}

TEST(SweepPoints, HaveTheirOwnFoldersAndOneCache) {
  RunOptions common;
  common.train.steps = 5;
  const RunOptions options = options_of({64, 0.25, 3}, common, "study");
  EXPECT_EQ(options.dir, "study/runs/d64-l0.25-s3");
  EXPECT_EQ(options.cache.dir, "study/cache");
  EXPECT_EQ(options.adapter.features, 64);
  EXPECT_EQ(options.loss.sparsity, 0.25);
  EXPECT_EQ(options.train.seed, 3u);
  EXPECT_EQ(options.train.steps, 5);
  common.cache.tokens_per_sequence = 4;
  EXPECT_EQ(options_of({64, 0.25, 3}, common, "study").cache.dir, "study/cache-s3");
  common.cache.dir = "mine";
  EXPECT_EQ(options_of({64, 0.25, 3}, common, "study").cache.dir, "mine");
}

TEST(Cohorts, AreTheRunsOfASeedThatStandTogether) {
  EXPECT_THAT(planned({{kSmall, {0}}, {kOtherSeed, {0}}, {kLarge, {0}}}),
              ElementsAre("from 0: d64-l0.1-s0 d256-l0.1-s0", "from 0: d64-l0.1-s1"));
}

TEST(Cohorts, GoBackByOneCheckpointAndNoFurther) {
  // Killed between the checkpoints of two runs: both go on from the one they share.
  EXPECT_THAT(planned({{kSmall, {300, 200, 0}}, {kMiddle, {200, 100, 0}}, {kLarge, {200, 100, 0}}}),
              ElementsAre("from 200: d64-l0.1-s0 d128-l0.1-s0 d256-l0.1-s0"));
  // A point that was added later goes alone.
  EXPECT_THAT(planned({{kSmall, {300, 200, 0}}, {kMiddle, {0}}}),
              ElementsAre("from 300: d64-l0.1-s0", "from 0: d128-l0.1-s0"));
  // The first checkpoint of one was lost: starting again is as near.
  EXPECT_THAT(planned({{kSmall, {100, 0}}, {kMiddle, {0}}}), ElementsAre("from 0: d64-l0.1-s0 d128-l0.1-s0"));
  // No step in common that is near enough.
  EXPECT_THAT(planned({{kSmall, {300, 0}}, {kMiddle, {200, 0}}}),
              ElementsAre("from 300: d64-l0.1-s0", "from 200: d128-l0.1-s0"));
}

TEST(Cohorts, AreCutIntoEvenParts) {
  EXPECT_THAT(planned({{kSmall, {0}}, {kMiddle, {0}}, {kLarge, {0}}}, 2),
              ElementsAre("from 0: d64-l0.1-s0 d256-l0.1-s0", "from 0: d128-l0.1-s0"));
  EXPECT_THAT(planned({}), ElementsAre());
}

}  // namespace
}  // namespace tadapt

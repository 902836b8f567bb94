// Differences between two models' responses: values by hand, intervals that hold the truth, tests that tell.
#include "runtime/eval/paired_scores.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "kernels/core/random.h"

namespace tadapt {
namespace {

const PairedScore& of(const PairedScores& scores, ResponseMetric metric) {
  return scores[static_cast<std::size_t>(metric)];
}

TEST(PairedScoresTest, ValuesAreThoseByHand) {
  const ModelResponses reference{"a",
                                 {{.question = 0, .correct = true, .tokens = 100, .waits = 2, .hesitations = 4},
                                  {.question = 1, .correct = true, .tokens = 300, .waits = 2, .hesitations = 4}}};
  const ModelResponses model{"b",
                             {{.question = 0, .correct = true, .tokens = 100, .waits = 1, .hesitations = 1},
                              {.question = 1, .degenerate = true, .tokens = 100, .hesitations = 1}}};
  const PairedScores scores = paired_scores(model, reference, 2, 0);
  EXPECT_DOUBLE_EQ(of(scores, ResponseMetric::kAccuracy).value.value, 0.5);
  EXPECT_DOUBLE_EQ(of(scores, ResponseMetric::kAccuracy).difference.value, -0.5);
  EXPECT_DOUBLE_EQ(of(scores, ResponseMetric::kMeanTokens).relative_change.value, -0.5);
  EXPECT_DOUBLE_EQ(of(scores, ResponseMetric::kWaitRate).value.value, 5.0);
  EXPECT_DOUBLE_EQ(of(scores, ResponseMetric::kHesitationRate).difference.value, 10.0 - 20.0);
  EXPECT_DOUBLE_EQ(of(scores, ResponseMetric::kDegenerateShare).value.value, 0.5);
  EXPECT_TRUE(std::isnan(of(scores, ResponseMetric::kDegenerateShare).relative_change.value));
}

TEST(PairedScoresTest, AModelAgainstItselfDoesNotDiffer) {
  ModelResponses model{"a", {}};
  for (int i = 0; i < 40; ++i) model.responses.push_back({.question = i, .correct = i % 3 == 0, .tokens = 10 + i});
  for (const PairedScore& score : paired_scores(model, model, 40, 1)) {
    EXPECT_EQ(score.difference.value, 0.0);
    EXPECT_EQ(score.difference.low, 0.0);
    EXPECT_EQ(score.difference.high, 0.0);
    EXPECT_EQ(score.p, 1.0);
  }
}

/// Questions are of very different lengths; what changes is a tenth of each.
TEST(PairedScoresTest, PairsSeeWhatTwoIntervalsWouldHide) {
  const RandomStream random(7, RandomPurpose::kTest, 0, 0);
  ModelResponses reference{"a", {}}, model{"b", {}};
  for (std::uint32_t i = 0; i < 200; ++i) {
    const auto tokens = static_cast<std::int64_t>(10 + random.below(i, 1000));
    reference.responses.push_back({.question = i, .tokens = tokens});
    model.responses.push_back({.question = i, .tokens = tokens * 9 / 10});
  }
  const PairedScore score = of(paired_scores(model, reference, 200, 3), ResponseMetric::kMeanTokens);
  EXPECT_NEAR(score.relative_change.value, -0.1, 0.005);
  EXPECT_GT(score.relative_change.low, -0.11);
  EXPECT_LT(score.relative_change.high, -0.09);
  EXPECT_LT(score.difference.high, 0.0);
  EXPECT_EQ(score.p, 0.0);
  const PairedScore other = of(paired_scores(reference, model, 200, 3), ResponseMetric::kMeanTokens);
  EXPECT_GT(score.value.high, other.value.low);
}

}  // namespace
}  // namespace tadapt

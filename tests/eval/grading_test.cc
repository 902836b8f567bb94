// Grader, degeneration, words and scores, against oracles that count everything anew.
#include <gmock/gmock.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "kernels/core/random.h"
#include "runtime/eval/benchmark_report.h"
#include "runtime/eval/grader.h"
#include "runtime/eval/response_metrics.h"

namespace tadapt {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

TEST(Grader, FindsTheAnswerOfTheConclusion) {
  const std::pair<const char*, const char*> cases[] = {
      {"<think>\nso 3</think>\nThe answer is 5.", "5"},
      {"The answer is 9856. Done", "9856"},
      {"the ANSWER IS: 3.5\nand more", "3.5"},
      {"Answer: x = 2", "x = 2"},
      {"<think>\\boxed{1}</think> so \\boxed{2} and \\boxed {\\frac{1}{\\sqrt{3}}}.", "\\frac{1}{\\sqrt{3}}"},
      {"The answer is 4, no: \\boxed{7}", "7"},
      {"<think>\nthe answer is 5. \\boxed{6} hmm", "6"},
      {"\\boxed{8} but not \\boxed{9", "8"},
      {"<think>a</think>The answer is 1.<think>b</think>The answer is 2.", "2"},
  };
  for (const auto& [response, answer] : cases) {
    const auto found = find_answer(response);
    ASSERT_TRUE(found) << response;
    EXPECT_TRUE(same_answer(*found, answer)) << response << " gives " << *found;
  }
  for (const char* response : {"", "5", "<think>\nthe answer is 5.", "\\boxed", "\\boxed{5"})
    EXPECT_FALSE(find_answer(response)) << response;
}

TEST(Grader, AnswersAreTheSameAsTextOrAsNumbers) {
  for (const auto& [found, expected] :
       std::initializer_list<std::pair<const char*, const char*>>{{" 5 ", "5"},
                                                                  {"5.0", "5"},
                                                                  {"05", "5"},
                                                                  {"-3/4", "-0.75"},
                                                                  {"\\frac{3}{4}", "0.75"},
                                                                  {"-\\dfrac{1}{2}", "-1/2"},
                                                                  {"1,234,567", "1234567"},
                                                                  {"$12$", "12"},
                                                                  {"\\(x+1\\)", "x + 1"},
                                                                  {"\\left(1, 2\\right)", "(1,2)"},
                                                                  {"\\text{Tuesday}", "Tuesday"},
                                                                  {"90^\\circ", "90"},
                                                                  {"**42**.", "42"},
                                                                  {"0123", "0123"},
                                                                  {".5", "0.5"},
                                                                  {"\\dfrac{\\pi}{2}", "\\frac{\\pi}{2}"}})
    EXPECT_TRUE(same_answer(found, expected)) << found << " " << expected;
  for (const auto& [found, expected] : std::initializer_list<std::pair<const char*, const char*>>{{"5", "6"},
                                                                                                  {"", ""},
                                                                                                  {"", "5"},
                                                                                                  {"985", "0985"},
                                                                                                  {"12,34", "1234"},
                                                                                                  {"1.2.3", "1.2"},
                                                                                                  {"x+1", "x+2"},
                                                                                                  {"1/0", "1"},
                                                                                                  {"\\frac{1}", "1"},
                                                                                                  {"--1", "1"},
                                                                                                  {"5 apples", "5"},
                                                                                                  {"1e3", "1000"},
                                                                                                  {"-", "0"}})
    EXPECT_FALSE(same_answer(found, expected)) << found << " " << expected;
  EXPECT_TRUE(is_correct("<think>\n</think>\nThe answer is 0985.", "0985"));
  EXPECT_FALSE(is_correct("<think>\n</think>\nThe answer is 985.", "0985"));
}

/// The definition, window by window.
std::optional<std::size_t> brute_force(const std::vector<std::int32_t>& ids) {
  for (std::size_t begin = 0; begin + 200 <= ids.size(); ++begin) {
    for (std::size_t n = 1; n <= 5; ++n) {
      std::map<std::vector<std::int32_t>, int> counts;
      for (std::size_t i = begin; i + n <= begin + 200; ++i) {
        const auto at = ids.begin() + static_cast<std::ptrdiff_t>(i);
        const int count = ++counts[{at, at + static_cast<std::ptrdiff_t>(n)}];
        if (static_cast<double>(count) * static_cast<double>(n) / 200.0 > 0.25) return begin;
      }
    }
  }
  return std::nullopt;
}

TEST(Degeneration, IsTheDefinition) {
  const RandomStream random(5, RandomPurpose::kTest, 0, 0);
  std::uint32_t index = 0;
  int degenerate = 0, later = 0;
  for (int trial = 0; trial < 60; ++trial) {
    // Noise, then a loop of some period that is broken now and then.
    const std::size_t length = 150 + random.below(index++, 350), start = random.below(index++, length);
    const std::uint64_t period = 1 + random.below(index++, 9), broken = 2 + random.below(index++, 12);
    std::vector<std::int32_t> ids;
    for (std::size_t i = 0; i < length; ++i) {
      const bool loops = i >= start && random.below(index++, broken) != 0;
      ids.push_back(static_cast<std::int32_t>(loops ? i % period : 100 + random.below(index++, 200)));
    }
    const auto expected = brute_force(ids);
    EXPECT_EQ(degeneration(ids), expected) << "trial " << trial;
    degenerate += expected ? 1 : 0;
    later += expected && *expected > 0 ? 1 : 0;
  }
  EXPECT_GT(degenerate, 12);
  EXPECT_LT(degenerate, 48);
  EXPECT_GT(later, 4);
}

TEST(Degeneration, BeginsAboveAQuarter) {
  std::vector<std::int32_t> ids;
  for (std::int32_t i = 0; i < 200; ++i) ids.push_back(i % 4 == 0 ? 0 : i);
  EXPECT_EQ(degeneration(ids), std::nullopt) << "50 of 200 tokens are a quarter";
  ids[1] = 0;
  EXPECT_EQ(degeneration(ids), 0u);
  ids.pop_back();
  EXPECT_EQ(degeneration(ids), std::nullopt) << "shorter than a window";
}

TEST(Words, AreWholeAndInAnyCase) {
  const WordCounts counts = count_words("Wait, wait! waiting await wait3 Hmm... BUT butter; Alternatively\nhmmm");
  EXPECT_EQ(counts.waits, 3);
  EXPECT_EQ(counts.hesitations, 6);
  EXPECT_EQ(count_words("").hesitations, 0);
}

/// `right` of 100 questions, each answered twice alike.
ModelResponses answers(const char* name, std::int64_t right) {
  ModelResponses model{.name = name, .responses = {}};
  for (std::int64_t i = 0; i < 200; ++i)
    model.responses.push_back({.question = i / 2,
                               .correct = i / 2 < right,
                               .degenerate = i < 20,
                               .finished = i >= 10,
                               .tokens = i < 150 ? 10 : 31,
                               .waits = i % 2,
                               .hesitations = 1});
  return model;
}

TEST(BenchmarkScores, AreMeansAndRates) {
  const BenchmarkReport report = score_benchmark({answers("target", 90)}, 100, 0);
  const ModelScores& scores = report.models.front();
  EXPECT_DOUBLE_EQ(scores.accuracy.value, 0.9);
  EXPECT_DOUBLE_EQ(scores.mean_tokens, (150 * 10 + 50 * 31) / 200.0);
  EXPECT_DOUBLE_EQ(scores.median_tokens, 10.0);
  EXPECT_DOUBLE_EQ(scores.wait_rate, 1000.0 * 100 / 3050);
  EXPECT_DOUBLE_EQ(scores.hesitation_rate, 1000.0 * 200 / 3050);
  EXPECT_DOUBLE_EQ(scores.degenerate_share, 0.1);
  EXPECT_DOUBLE_EQ(scores.unfinished_share, 0.05);
  // Questions are resampled, not responses: the spread is that of 100 draws.
  const double spread = 1.96 * std::sqrt(0.9 * 0.1 / 100);
  EXPECT_NEAR(scores.accuracy.low, 0.9 - spread, 0.02);
  EXPECT_NEAR(scores.accuracy.high, 0.9 + spread, 0.02);
  EXPECT_TRUE(std::isnan(report.recovery_from_hybrid.value)) << "there are no others";
}

TEST(BenchmarkScores, RecoveryIsTheShareOfTheGap) {
  const std::vector<ModelResponses> models{answers("base", 30), answers("hybrid", 10), answers("adapter", 70),
                                           answers("target", 90)};
  const BenchmarkReport report = score_benchmark(models, 100, 7);
  EXPECT_DOUBLE_EQ(report.recovery_from_hybrid.value, 0.75);
  EXPECT_DOUBLE_EQ(report.recovery_from_base.value, 40.0 / 60.0);
  for (const Estimate& estimate : {report.recovery_from_hybrid, report.recovery_from_base}) {
    EXPECT_LT(estimate.low, estimate.value - 0.03);
    EXPECT_GT(estimate.high, estimate.value + 0.03);
    EXPECT_LT(estimate.high - estimate.low, 0.4);
  }
  EXPECT_EQ(to_json(report, {}), to_json(score_benchmark(models, 100, 7), {}));
  EXPECT_NE(to_json(report, {}), to_json(score_benchmark(models, 100, 8), {})) << "other resamples";
  EXPECT_THAT(to_table(report), AllOf(HasSubstr("adapter"), HasSubstr("from the hybrid 75.0 %")));
}

TEST(BenchmarkScores, WithoutAGapThereIsNoRecovery) {
  const BenchmarkReport report =
      score_benchmark({answers("hybrid", 50), answers("adapter", 70), answers("target", 50)}, 100, 0);
  EXPECT_TRUE(std::isnan(report.recovery_from_hybrid.value));
  EXPECT_THAT(to_table(report), HasSubstr("from the hybrid not defined"));
  EXPECT_THAT(to_json(report, {}), HasSubstr("\"value\": null"));
}

}  // namespace
}  // namespace tadapt

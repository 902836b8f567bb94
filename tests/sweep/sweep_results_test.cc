// What a study reads of its runs' files, and what it makes of them.
#include "runtime/sweep/sweep_results.h"

#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

#include "tests/support/errors.h"
#include "tests/support/temporary_directory.h"

namespace tadapt {
namespace {
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class SweepResults : public ::testing::Test {
 protected:
  void put(const std::string& name, const std::string& text) {
    const std::filesystem::path path = folder_ / "runs" / kPoint.name() / name;
    files_.make_directories(path.parent_path());
    write_atomically(files_, path, text);
  }
  SweepResult load() { return load_result(files_, folder_.path(), kPoint); }

  const SweepPoint kPoint{64, 0.5, 1};
  RealFileSystem files_;
  testing::TemporaryDirectory folder_;
};

TEST_F(SweepResults, AreTheEvaluationsWhereThereIsOne) {
  put("evaluation.json", R"({"layers": [{"layer": 0, "delta_nmse": 0.5, "l0": 2, "dead_share": 0.25},
                                        {"layer": 3, "delta_nmse": 0.1, "l0": 4, "dead_share": 0.75}],
                             "models": [{"model": "hybrid", "response": {"tokens": 9, "token_kl": 7}},
                                        {"model": "adapter", "response": {"tokens": 9, "token_kl": 0.125}}]})");
  put("metrics.jsonl", "nonsense that nobody reads");
  put("timing.jsonl", R"({"step": 10, "seconds": 2, "tokens_per_second": 50, "ranks": 4, "share": 0.25}
{"step": 20, "seconds": 5, "tokens_per_second": 40, "ranks": 4, "share": 0.25}
{"step": 30, "seconds": 1, "tokens_per_second": 30, "ranks": 2, "share": 0.5}
)");
  const SweepResult result = load();
  EXPECT_DOUBLE_EQ(result.whole.l0, 3);
  EXPECT_DOUBLE_EQ(result.whole.nmse, 0.3);
  EXPECT_DOUBLE_EQ(result.whole.dead_share, 0.5);
  EXPECT_EQ(result.whole.kl, 0.125);
  EXPECT_THAT(result.layers, ElementsAre(0, 3));
  EXPECT_DOUBLE_EQ(result.seconds, 6);
  EXPECT_DOUBLE_EQ(result.rank_seconds, 5 * 4 * 0.25 + 1 * 2 * 0.5);
  EXPECT_DOUBLE_EQ(result.tokens_per_second, 30);
}

TEST_F(SweepResults, AreElseThoseOfTheLastHeldOutRows) {
  put("metrics.jsonl", R"({"step": 1, "trainees": {"layer-002": {"nmse": 0.9, "l0": 9, "dead_share": 0.5}}}
{"step": 2, "trainees": {"layer-002": {"nmse": 0.8, "l0": 8, "dead_share": 0.25}}}
{"step": 2, "held_out": {"layer-002": {"nmse": 0.7, "l0": 7}}}
)");
  const SweepResult result = load();
  EXPECT_DOUBLE_EQ(result.whole.nmse, 0.7);
  EXPECT_DOUBLE_EQ(result.whole.l0, 7);
  EXPECT_DOUBLE_EQ(result.whole.dead_share, 0.25);
  EXPECT_EQ(result.whole.kl, std::nullopt);
  put("metrics.jsonl", "{\"step\": 1}\nnonsense\n");
  EXPECT_ERROR(load(), DataError, HasSubstr("line 2"));
}

SweepResult made(std::int64_t dictionary, double sparsity, double l0, double nmse) {
  const SweepPoint point{dictionary, sparsity, 0};
  return {.point = point,
          .run = "runs/" + point.name(),
          .whole = {.l0 = l0, .nmse = nmse, .kl = nmse / 10, .dead_share = 0.0},
          .layers = {0},
          .by_layer = {{.l0 = l0, .nmse = nmse, .kl = std::nullopt, .dead_share = 0.0}}};
}

TEST(SweepAnalysis, HasFrontsFitsAndARecommendation) {
  const std::vector<SweepResult> results{made(64, 0.1, 10, 0.5), made(64, 1, 1, 0.8), made(128, 0.1, 12, 0.25),
                                         made(256, 0.1, 14, 0.125), made(128, 1, 3, 0.2)};
  const SweepAnalysis analysis = analyse(results);
  EXPECT_THAT(analysis.nmse_front, ElementsAre(1, 4, 3));
  EXPECT_EQ(analysis.kl_front, analysis.nmse_front);
  EXPECT_EQ(analysis.recommended, 4u);
  ASSERT_EQ(analysis.fits.size(), 2u);
  EXPECT_EQ(analysis.fits[0].figure, "nmse");
  EXPECT_NEAR(analysis.fits[0].law.exponent, -1.0, 1e-12);
  const auto json = nlohmann::json::parse(to_json(results, analysis, {{512, 0.1, 0}}, {{{512, 1, 0}, "why"}}));
  EXPECT_EQ(json.at("points").size(), 5u);
  EXPECT_EQ(json.at("points")[0].at("layers")[0].at("nmse"), 0.5);
  EXPECT_EQ(json.at("recommended"), 4);
  EXPECT_EQ(json.at("unfinished")[0].at("dictionary"), 512);
  EXPECT_EQ(json.at("failed")[0].at("reason"), "why");
  EXPECT_THAT(to_csv(results), HasSubstr("\n64,0.1,0,0,10,0.5,,0,0,0,0,runs/d64-l0.1-s0\n"));
  EXPECT_THAT(to_table(results, analysis), HasSubstr(" * <"));
}

TEST(SweepAnalysis, OfNothingIsEmpty) {
  const SweepAnalysis analysis = analyse({});
  EXPECT_EQ(analysis.recommended, std::nullopt);
  EXPECT_EQ(nlohmann::json::parse(to_json({}, analysis, {}, {})).at("recommended"), nullptr);
}

}  // namespace
}  // namespace tadapt

// Metrics of any objective are read by their names; what is no line of metrics is named by file and line.
#include "runtime/report/metrics_reader.h"

#include <cmath>

#include "tests/support/errors.h"
#include "tests/support/temporary_directory.h"

namespace tadapt {
namespace {
using ::testing::AllOf;
using ::testing::EndsWith;
using ::testing::HasSubstr;

class MetricsReaderTest : public ::testing::Test {
 protected:
  std::vector<MetricsLine> read(const std::string& text) {
    write_atomically(files_, file_, text);
    std::vector<MetricsLine> lines;
    read_metrics(files_, file_, [&](const MetricsLine& line) { lines.push_back(line); });
    return lines;
  }
  static double figure(const MetricsLine& line, const std::string& metric, const std::string& trainee) {
    for (const MetricsFigure& one : line.figures)
      if (one.metric == metric && one.trainee == trainee) return one.value;
    ADD_FAILURE() << "no " << metric << " of '" << trainee << "'";
    return 0.0;
  }

  RealFileSystem files_;
  tadapt::testing::TemporaryDirectory folder_;
  const std::filesystem::path file_ = folder_ / "metrics.jsonl";
};

TEST_F(MetricsReaderTest, FiguresOfTheWholeOfTraineesAndTheirMeans) {
  const auto lines = read(
      R"({"step":1,"tokens":64,"loss":2.5,"cutoffs":[1,2],"trainees":{"layer-000":{"loss":9,"l0":10},"layer-001":{"l0":20}}})"
      "\n"
      R"({"step":1,"held_out":{"kl_adapter":0.25,"layer-000":{"nmse":0.5},"layer-001":{"nmse":null}}})"
      "\n");
  ASSERT_EQ(lines.size(), 2u);
  EXPECT_EQ(lines[0].kind, MetricsLine::Kind::kStep);
  EXPECT_EQ(lines[0].tokens, 64);
  EXPECT_EQ(figure(lines[0], "loss", kWhole), 2.5);
  EXPECT_EQ(figure(lines[0], "loss", "layer-000"), 9.0);
  EXPECT_EQ(figure(lines[0], "l0", kMean), 15.0);
  EXPECT_EQ(lines[0].figures.size(), 5u) << "no mean of the loss, which the whole has, and no cutoffs";
  EXPECT_EQ(lines[1].kind, MetricsLine::Kind::kHeldOut);
  EXPECT_EQ(figure(lines[1], "kl_adapter", kWhole), 0.25);
  EXPECT_TRUE(std::isnan(figure(lines[1], "nmse", "layer-001")));
  EXPECT_TRUE(std::isnan(figure(lines[1], "nmse", kMean)));
}

TEST_F(MetricsReaderTest, TheEndOfARunThatWasNotFinite) {
  const auto lines = read("{\"step\":3,\"not_finite\":\"layer 3: the loss is not finite\"}\n");
  ASSERT_EQ(lines.size(), 1u);
  EXPECT_EQ(lines[0].kind, MetricsLine::Kind::kNotFinite);
  EXPECT_EQ(lines[0].message, "layer 3: the loss is not finite");
}

TEST_F(MetricsReaderTest, ATornLastLineIsLeftOut) {
  EXPECT_EQ(read("{\"step\":1,\"loss\":1}\n{\"step\":2,\"lo").size(), 1u);
  EXPECT_EQ(read("").size(), 0u);
}

TEST_F(MetricsReaderTest, WhatIsNoLineOfMetricsIsNamed) {
  const std::string good = "{\"step\":1,\"loss\":1}\n";
  EXPECT_ERROR(
      read(good + "nonsense\n" + good), DataError,
      AllOf(HasSubstr("metrics.jsonl:2: expected a JSON object with a \"step\""), EndsWith("found \"nonsense\"")));
  EXPECT_ERROR(read(good + good + "\n" + good), DataError, HasSubstr("metrics.jsonl:3: "));
  EXPECT_ERROR(read("[1]\n"), DataError, HasSubstr("metrics.jsonl:1: "));
  EXPECT_ERROR(read("{\"step\":\"1\"}\n"), DataError, HasSubstr("metrics.jsonl:1: "));
  EXPECT_ERROR(read("{\"step\":5}\n{\"step\":4}\n"), DataError,
               HasSubstr("metrics.jsonl:2: step 4 stands behind step 5"));
}

}  // namespace
}  // namespace tadapt

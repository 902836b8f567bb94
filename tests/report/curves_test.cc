// Curves: what is joined keeps mean, lowest and highest, however many lines there are.
#include "runtime/report/curves.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <nlohmann/json.hpp>

namespace tadapt {
namespace {
using ::testing::ElementsAre;
using ::testing::Le;
using Json = nlohmann::json;

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

MetricsLine line(std::int64_t step, double loss, std::int64_t tokens = 10) {
  return {.step = step, .tokens = tokens, .figures = {{"loss", kWhole, loss}}};
}

TEST(CurvesTest, FewLinesAreShownAsTheyAre) {
  Curves curves(100);
  for (int step = 1; step <= 4; ++step) curves.add(line(step, 0.5 * step));
  const Json json = curves.to_json(100);
  EXPECT_EQ(json["step"], Json({1, 2, 3, 4}));
  EXPECT_EQ(json["tokens"], Json({10, 20, 30, 40}));
  const Json& loss = json["series"][0];
  EXPECT_EQ(loss["metric"], "loss");
  EXPECT_EQ(loss["trainee"], "");
  EXPECT_EQ(loss["mean"], Json({0.5, 1.0, 1.5, 2.0}));
  EXPECT_FALSE(loss.contains("low"));
  EXPECT_EQ(loss["last"], 1.25);
}

TEST(CurvesTest, PointsOfManyLinesAreTheirMeanLowestAndHighest) {
  Curves curves(4);
  for (int step = 1; step <= 16; ++step) curves.add(line(step, step % 4 == 0 ? 100.0 : step));
  const Json json = curves.to_json(4);
  EXPECT_EQ(json["step"], Json({2.5, 6.5, 10.5, 14.5}));
  EXPECT_EQ(json["tokens"], Json({40, 80, 120, 160}));
  const Json& loss = json["series"][0];
  EXPECT_EQ(loss["mean"], Json({26.5, 29.5, 32.5, 35.5}));
  EXPECT_EQ(loss["low"], Json({1.0, 5.0, 9.0, 13.0}));
  EXPECT_EQ(loss["high"], Json({100.0, 100.0, 100.0, 100.0}));
}

TEST(CurvesTest, APeakOfOneStepOfAMillionIsStillThere) {
  Curves curves(200);
  for (int step = 1; step <= 1'000'000; ++step) curves.add(line(step, step == 654'321 ? 7.0 : 1.0));
  for (const std::size_t points : {std::size_t{400}, std::size_t{200}, std::size_t{37}, std::size_t{1}}) {
    const Json loss = curves.to_json(points)["series"][0];
    EXPECT_THAT(loss["mean"].size(), Le(points));
    double highest = 0.0;
    for (const double value : loss["high"]) highest = std::max(highest, value);
    EXPECT_EQ(highest, 7.0);
  }
}

TEST(CurvesTest, WhatIsNoNumberIsAHole) {
  Curves curves(10);
  curves.add(line(1, 1.0));
  curves.add(line(2, kNaN));
  curves.add({.step = 3, .tokens = 10, .figures = {{"nmse", "layer-000", 0.123456789}}});
  const Json json = curves.to_json(10);
  EXPECT_EQ(json["series"][0]["mean"], Json({1.0, nullptr, nullptr}));
  EXPECT_EQ(json["series"][1]["mean"], Json({nullptr, nullptr, 0.12346}));
  EXPECT_EQ(json["series"][1]["trainee"], "layer-000");
}

TEST(CurvesTest, StepsThatWereNotLoggedHadTokensToo) {
  Curves curves(10);
  curves.add(line(10, 1.0, 100));
  curves.add(line(20, 1.0, 100));
  EXPECT_EQ(curves.to_json(10)["tokens"], Json({1000, 2000}));
}

TEST(CurvesTest, TheLastFigureIsAMeanOfAFewLines) {
  Curves curves(2);
  for (int step = 1; step <= 1000; ++step) curves.add(line(step, step));
  EXPECT_EQ(curves.to_json(2)["series"][0]["last"], 990.5);
}

}  // namespace
}  // namespace tadapt

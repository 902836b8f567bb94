// Pareto fronts, knees and power laws.
#include <gmock/gmock.h>

#include <cmath>

#include "runtime/sweep/pareto.h"
#include "runtime/sweep/power_law.h"

namespace tadapt {
namespace {
using ::testing::ElementsAre;
using ::testing::IsEmpty;

TEST(ParetoFront, IsWhatNoOtherPointBeats) {
  const std::vector<Tradeoff> points{{1, 9}, {2, 5}, {2, 6}, {3, 5}, {4, 1}, {5, 2}, {NAN, 0}, {0, NAN}};
  EXPECT_THAT(pareto_front(points), ElementsAre(0, 1, 4));
  EXPECT_THAT(pareto_front({}), IsEmpty());
}

TEST(Knee, IsFurthestBelowTheLineBetweenTheEnds) {
  const std::vector<Tradeoff> points{{1, 100}, {10, 2}, {100, 1}, {3, 60}};
  EXPECT_EQ(knee(points, pareto_front(points)), 1u);
}

TEST(Knee, OfAShortFrontIsTheLeastError) {
  const std::vector<Tradeoff> points{{1, 100}, {10, 2}};
  EXPECT_EQ(knee(points, pareto_front(points)), 1u);
  EXPECT_EQ(knee(points, {}), std::nullopt);
  const std::vector<Tradeoff> with_zero{{0, 100}, {10, 2}, {20, 1}};
  EXPECT_EQ(knee(with_zero, pareto_front(with_zero)), 2u);
}

TEST(PowerLaw, IsFoundExactly) {
  const std::vector<double> x{64, 128, 256, 512};
  std::vector<double> y;
  for (const double one : x) y.push_back(3.0 * std::pow(one, -0.7));
  const auto law = fit_power_law(x, y);
  ASSERT_TRUE(law);
  EXPECT_NEAR(law->amplitude, 3.0, 1e-9);
  EXPECT_NEAR(law->exponent, -0.7, 1e-12);
  EXPECT_NEAR(law->high - law->low, 0.0, 1e-9);
}

/// scipy.stats.linregress over the logarithms, and its slope's standard error times t(0.975, 4) = 2.776445.
TEST(PowerLaw, HasStudentsInterval) {
  const std::vector<double> x{1, 1, 2, 2, 4, 4}, y{1.0, 1.2, 0.7, 0.6, 0.5, 0.4};
  const auto law = fit_power_law(x, y);
  ASSERT_TRUE(law);
  double sum = 0, residual = 0, xx = 0;
  const double mean = std::log(2.0);
  for (std::size_t i = 0; i < x.size(); ++i) {
    xx += std::pow(std::log(x[i]) - mean, 2);
    sum += (std::log(x[i]) - mean) * std::log(y[i]);
  }
  EXPECT_NEAR(law->exponent, sum / xx, 1e-12);
  for (std::size_t i = 0; i < x.size(); ++i)
    residual += std::pow(std::log(y[i]) - std::log(law->amplitude) - law->exponent * std::log(x[i]), 2);
  EXPECT_NEAR(law->high - law->exponent, 2.776445 * std::sqrt(residual / 4 / xx), 1e-6);
  EXPECT_NEAR(law->exponent - law->low, law->high - law->exponent, 1e-12);
}

TEST(PowerLaw, NeedsThreeSizesAndPositiveNumbers) {
  EXPECT_FALSE(fit_power_law(std::vector<double>{1, 2, 2}, std::vector<double>{1, 2, 3}));
  EXPECT_FALSE(fit_power_law(std::vector<double>{1, 2, 4}, std::vector<double>{1, 0, 3}));
  EXPECT_FALSE(fit_power_law(std::vector<double>{1, 2, 4}, std::vector<double>{1, NAN, 3}));
}

}  // namespace
}  // namespace tadapt

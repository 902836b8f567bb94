// Scale and concentration of Δ on rows whose answers are exact.
#include "data/delta_statistics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

#include "tests/support/errors.h"

namespace tadapt {
namespace {
using ::testing::HasSubstr;

TEST(DeltaStatisticsTest, ScaleIsOfTheFirstRowsOnly) {
  std::vector<double> norms(kScaleRows + 1000, 2.0);
  std::fill(norms.begin() + kScaleRows, norms.end(), 1e9);
  norms[0] = 2.0 + kScaleRows;
  const std::vector<std::int32_t> positions(norms.size(), 1);
  EXPECT_EQ(delta_statistics(norms, positions).scale_square, 3.0);
}

TEST(DeltaStatisticsTest, LargestRowsAreATenthOfAPercentRoundedUp) {
  std::vector<double> norms(2001, 1.0);
  for (const std::size_t row : {7u, 1500u, 2000u}) norms[row] = 1000.0;  // ceil(2001 / 1000) = 3 rows
  norms[8] = 500.0;
  const std::vector<std::int32_t> positions(norms.size(), 1);
  EXPECT_DOUBLE_EQ(delta_statistics(norms, positions).largest_rows_share, 3000.0 / (3500.0 + 1997.0));
}

TEST(DeltaStatisticsTest, FirstPositionsAreCounted) {
  const std::vector<double> norms{4, 1, 1, 2};
  const std::vector<std::int32_t> positions{0, 1, 2, 0};
  EXPECT_EQ(delta_statistics(norms, positions).first_position_share, 0.75);
}

TEST(DeltaStatisticsTest, EqualModelsHaveNoDelta) {
  const std::vector<double> norms(5, 0.0);
  const DeltaStatistics statistics = delta_statistics(norms, std::vector<std::int32_t>(5));
  EXPECT_EQ(statistics.scale_square, 0.0);
  EXPECT_EQ(statistics.largest_rows_share, 0.0);
  EXPECT_EQ(statistics.first_position_share, 0.0);
}

TEST(DeltaStatisticsTest, NoRowsAreRefused) { EXPECT_ERROR(delta_statistics({}, {}), ShapeError, HasSubstr("0 rows")); }

}  // namespace
}  // namespace tadapt

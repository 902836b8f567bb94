// DataOrder: every row exactly once per epoch, and the same answer for whoever asks.
#include "data/row_order.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "tests/support/errors.h"

namespace tadapt {
namespace {
using ::testing::HasSubstr;

std::vector<std::int64_t> epoch_rows(const DataOrder& order, std::int64_t epoch) {
  return order.rows_of(epoch * order.rows(), (epoch + 1) * order.rows());
}

bool is_permutation_of(std::vector<std::int64_t> rows, std::int64_t first, std::int64_t count) {
  std::vector<std::int64_t> expected(static_cast<std::size_t>(count));
  std::iota(expected.begin(), expected.end(), first);
  std::sort(rows.begin(), rows.end());
  return rows == expected;
}

TEST(DataOrderTest, EveryRowOncePerEpoch) {
  for (const std::int64_t rows : {1, 2, 3, 5, 7, 8, 9, 64, 65, 1000, 4097}) {
    for (const std::int64_t epoch : {0, 1, 17}) {
      EXPECT_TRUE(is_permutation_of(epoch_rows(DataOrder::global(rows, 3), epoch), 0, rows)) << rows;
      for (const std::int64_t window : {1, 2, 7, 64, 5000}) {
        EXPECT_TRUE(is_permutation_of(epoch_rows(DataOrder::window(rows, window, 3), epoch), 0, rows)) << rows;
      }
    }
  }
}

TEST(DataOrderTest, WindowsAreVisitedInOrder) {
  const auto rows = epoch_rows(DataOrder::window(23, 5, 9), 4);
  for (std::int64_t first = 0; first < 23; first += 5) {
    const std::int64_t count = std::min<std::int64_t>(5, 23 - first);
    const std::vector<std::int64_t> window(rows.begin() + first, rows.begin() + first + count);
    EXPECT_TRUE(is_permutation_of(window, first, count)) << first;
  }
}

TEST(DataOrderTest, SeedsAndEpochsDiffer) {
  for (const auto& make : {+[](std::uint64_t seed) { return DataOrder::global(1000, seed); },
                           +[](std::uint64_t seed) { return DataOrder::window(1000, 300, seed); }}) {
    EXPECT_NE(epoch_rows(make(1), 0), epoch_rows(make(1), 1));
    EXPECT_NE(epoch_rows(make(1), 0), epoch_rows(make(2), 0));
    EXPECT_EQ(epoch_rows(make(1), 1), epoch_rows(make(1), 1));
  }
  const auto rows = epoch_rows(DataOrder::window(600, 300, 1), 0);
  const auto second_window_moved = [&](std::size_t i) { return rows[300 + i] - 300 == rows[i]; };
  int same = 0;
  for (std::size_t i = 0; i < 300; ++i) same += second_window_moved(i) ? 1 : 0;
  EXPECT_LT(same, 20);
}

TEST(DataOrderTest, AnswersDoNotDependOnWhoAsks) {
  for (const DataOrder& order : {DataOrder::global(777, 5), DataOrder::window(777, 100, 5)}) {
    const auto all = order.rows_of(0, 3 * 777);
    for (const std::int64_t begin : {0, 1, 99, 100, 101, 776, 777, 778, 1500}) {
      for (const std::int64_t count : {0, 1, 2, 100, 700}) {
        const std::vector<std::int64_t> part(all.begin() + begin, all.begin() + begin + count);
        EXPECT_EQ(order.rows_of(begin, begin + count), part) << begin << " " << count;
      }
    }
  }
}

TEST(DataOrderTest, BlocksEndWithWindowsAndEpochs) {
  const DataOrder window = DataOrder::window(23, 5, 1);
  EXPECT_EQ(window.block_end(0, 4), 5);
  EXPECT_EQ(window.block_end(7, 4), 10);
  EXPECT_EQ(window.block_end(20, 4), 23);
  EXPECT_EQ(window.block_end(23, 4), 28);
  EXPECT_EQ(window.block_end(45, 4), 46);
  const DataOrder global = DataOrder::global(23, 1);
  EXPECT_EQ(global.block_end(0, 4), 4);
  EXPECT_EQ(global.block_end(21, 4), 23);
  EXPECT_EQ(global.block_end(24, 4), 28);
}

/// Mean of |place - row| over a random permutation of N is (N² - 1) / (3 N).
TEST(DataOrderTest, ShufflesSpreadRowsEvenly) {
  constexpr std::int64_t kRows = 40001;
  for (const DataOrder& order : {DataOrder::global(kRows, 11), DataOrder::window(kRows, kRows, 11)}) {
    const auto rows = epoch_rows(order, 0);
    double moved = 0;
    std::int64_t neighbours = 0;
    std::vector<std::int64_t> tenths(100);
    for (std::int64_t i = 0; i < kRows; ++i) {
      const std::int64_t row = rows[static_cast<std::size_t>(i)];
      moved += std::abs(static_cast<double>(row - i));
      if (i > 0 && std::abs(row - rows[static_cast<std::size_t>(i - 1)]) == 1) ++neighbours;
      ++tenths[static_cast<std::size_t>(i * 10 / kRows * 10 + row * 10 / kRows)];
    }
    EXPECT_NEAR(moved / kRows, kRows / 3.0, 0.02 * kRows / 3.0);
    EXPECT_LT(neighbours, 15);  // two are expected
    for (const std::int64_t count : tenths) EXPECT_NEAR(static_cast<double>(count), 400.0, 100.0);
  }
}

TEST(DataOrderTest, ImpossibleOrdersAreRefused) {
  EXPECT_ERROR(DataOrder::global(0, 1), ConfigError, HasSubstr("0 rows"));
  EXPECT_ERROR(DataOrder::window(10, 0, 1), ConfigError, HasSubstr("windows of 0"));
}

}  // namespace
}  // namespace tadapt

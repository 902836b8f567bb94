// top_k against sorting, on every device.
#include "kernels/top_k.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "tests/kernels/testing.h"
#include "tests/support/errors.h"

namespace tadapt {
namespace {

struct Found {
  std::vector<float> numbers;
  std::vector<std::int32_t> ids;
};

class TopK : public testing::PerDevice {
 protected:
  Found run(const Tensor& x, Extreme extreme, std::int64_t k) {
    Context context = testing::context_on(GetParam(), 2);
    const DeviceView there(context, x);
    const Buffer numbers(GetParam(), DType::kFloat32, {x.size(0), k}), ids(GetParam(), DType::kInt32, {x.size(0), k});
    top_k(context, there.tensor(), extreme, numbers.tensor(), ids.tensor());
    return {on_host<float>(context, numbers.tensor()), on_host<std::int32_t>(context, ids.tensor())};
  }
  Found run(std::vector<float> row, Extreme extreme, std::int64_t k) {
    return run(Tensor::of(std::span(row), {1, static_cast<std::int64_t>(row.size())}), extreme, k);
  }
};
INSTANTIATE_TEST_SUITE_P(Devices, TopK, testing::kEachDevice, testing::device_name);

TEST_P(TopK, IsTheBeginningOfTheSortedRow) {
  for (const auto& [n, k] : {std::pair<std::int64_t, std::int64_t>{1, 1}, {7, 7}, {33, 4}, {700, 10}}) {
    Buffer x = testing::uniform(DType::kFloat32, {3, n}, static_cast<std::uint64_t>(n));
    // Eighths: many numbers are equal.
    for (float& number : x.span<float>()) number = std::round(number * 8.0f) / 8.0f;
    for (const Extreme extreme : {Extreme::kLargest, Extreme::kSmallest}) {
      const Found found = run(x.tensor(), extreme, k);
      for (std::int64_t row = 0; row < 3; ++row) {
        std::vector<std::pair<double, std::int32_t>> sorted;
        for (std::int64_t i = 0; i < n; ++i) {
          const double number = testing::value(x.tensor(), row * n + i);
          sorted.emplace_back(extreme == Extreme::kLargest ? -number : number, static_cast<std::int32_t>(i));
        }
        std::ranges::sort(sorted);
        for (std::int64_t i = 0; i < k; ++i) {
          const auto at = static_cast<std::size_t>(row * k + i);
          const auto& [number, id] = sorted[static_cast<std::size_t>(i)];
          ASSERT_EQ(found.ids[at], id) << "N " << n << " row " << row << " place " << i;
          ASSERT_EQ(std::abs(found.numbers[at]), std::abs(number));
        }
      }
    }
  }
}

TEST_P(TopK, NanStandsLastAndInfinitiesAreNumbers) {
  const float nan = std::nanf(""), infinity = std::numeric_limits<float>::infinity();
  const std::vector<float> row{nan, 1.0f, -infinity, nan, infinity, 1.0f};
  EXPECT_EQ(run(row, Extreme::kLargest, 6).ids, (std::vector<std::int32_t>{4, 1, 5, 2, 0, 3}));
  EXPECT_EQ(run(row, Extreme::kSmallest, 6).ids, (std::vector<std::int32_t>{2, 1, 5, 4, 0, 3}));
}

TEST(TopKShapes, MoreThanARowHasIsRefused) {
  Context context = Context::cpu(1);
  const Buffer x(Device::kCpu, DType::kFloat32, {2, 3}), numbers(Device::kCpu, DType::kFloat32, {2, 4}),
      ids(Device::kCpu, DType::kInt32, {2, 4});
  EXPECT_ERROR(top_k(context, x.tensor(), Extreme::kLargest, numbers.tensor(), ids.tensor()), ShapeError,
               ::testing::HasSubstr("top_k: 4 of rows of 3"));
}

}  // namespace
}  // namespace tadapt

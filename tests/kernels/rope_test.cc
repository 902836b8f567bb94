#include "kernels/rope.h"

#include <cmath>

#include "tests/kernels/finite_difference.h"
#include "tests/kernels/testing.h"

namespace tadapt {
namespace {
using testing::uniform;
using testing::value;

Buffer make_positions(std::vector<std::int32_t> values) {
  Buffer buffer(Device::kCpu, DType::kInt32, {static_cast<std::int64_t>(values.size())});
  std::copy(values.begin(), values.end(), buffer.span<std::int32_t>().begin());
  return buffer;
}

TEST(Rope, MatchesTheOracle) {
  for (const std::int64_t size : {2, 8, 34, 128}) {
    for (const double theta : {10000.0, 1e6}) {
      Context context = Context::cpu(2);
      const Buffer positions = make_positions({0, 1, 2, 5, 100, 4095, 20000});
      const std::int64_t heads = 3, t = 7, half = size / 2;
      const Buffer before = uniform(DType::kFloat32, {t, heads, size}, 1), x = testing::copy(before.tensor());
      rope(context, x.tensor(), positions.tensor(), theta);
      for (std::int64_t i = 0; i < t * heads * size; ++i) {
        const std::int64_t d = i % size, j = d % half, base = i - d;
        const double position = positions.span<std::int32_t>()[static_cast<std::size_t>(i / (heads * size))];
        const double angle = position * std::pow(theta, -2.0 * static_cast<double>(j) / static_cast<double>(size));
        const double first = value(before.tensor(), base + j), second = value(before.tensor(), base + j + half);
        const double truth = d < half ? first * std::cos(angle) - second * std::sin(angle)
                                      : second * std::cos(angle) + first * std::sin(angle);
        // The angle is fp32, as published models had it in training: its error grows with the position.
        ASSERT_NEAR(value(x.tensor(), i), truth, 4e-7 + position * 4e-7) << "size " << size << " element " << i;
      }
    }
  }
}

TEST(Rope, PositionZeroChangesNothing) {
  Context context = Context::cpu(1);
  const Buffer positions = make_positions({0, 0}), before = uniform(DType::kFloat32, {2, 1, 6}, 1);
  const Buffer x = testing::copy(before.tensor());
  rope(context, x.tensor(), positions.tensor(), 10000);
  EXPECT_TRUE(testing::same_bits(before.tensor(), x.tensor()));
}

// ⟨rotated x, c⟩ = ⟨x, c rotated backward⟩, which for a linear map is what a gradient is.
TEST(Rope, BackwardIsTheTransposeAndTheInverse) {
  for (const std::int64_t size : {2, 34, 128}) {
    Context context = Context::cpu(2);
    const std::int64_t width = 3 * size;
    const Buffer positions = make_positions({0, 1, 100, 4095, 131071});
    const Buffer x = uniform(DType::kFloat32, {5, 3, size}, 1), rotated = testing::copy(x.tensor());
    const Buffer c = uniform(DType::kFloat32, {5, 3, size}, 2), back = testing::copy(c.tensor());
    rope(context, rotated.tensor(), positions.tensor(), 10000);
    rope(context, back.tensor(), positions.tensor(), 10000, Rotation::kBackward);
    for (std::int64_t t = 0; t < 5; ++t) {
      double left = 0, right = 0;
      for (std::int64_t i = t * width; i < (t + 1) * width; ++i) {
        left += value(rotated.tensor(), i) * value(c.tensor(), i);
        right += value(x.tensor(), i) * value(back.tensor(), i);
      }
      EXPECT_NEAR(left, right, 3e-6) << "size " << size << " row " << t;
    }
    rope(context, rotated.tensor(), positions.tensor(), 10000, Rotation::kBackward);
    for (std::int64_t i = 0; i < 5 * width; ++i) ASSERT_NEAR(value(rotated.tensor(), i), value(x.tensor(), i), 4e-7);
  }
}

TEST(Rope, BackwardIsTheDerivative) {
  constexpr std::size_t kSize = 6, kHalf = kSize / 2;
  Context context = Context::cpu(2);
  const Buffer positions = make_positions({0, 3, 40, 1000});
  const Buffer x = uniform(DType::kFloat32, {4, 2, kSize}, 1), c = uniform(DType::kFloat32, {4, 2, kSize}, 2);
  const Buffer gradient = testing::copy(c.tensor());
  rope(context, gradient.tensor(), positions.tensor(), 10000, Rotation::kBackward);
  const std::vector<double> numbers = testing::doubles(x.tensor()), cotangent = testing::doubles(c.tensor());
  const testing::Formula contracted = [&](const std::vector<double>& at) {
    double sum = 0;
    for (std::size_t i = 0; i < at.size(); ++i) {
      if (i % kSize >= kHalf) continue;
      const double angle = positions.span<std::int32_t>()[i / (2 * kSize)] *
                           std::pow(10000, -2.0 * static_cast<double>(i % kSize) / kSize);
      sum += cotangent[i] * (at[i] * std::cos(angle) - at[i + kHalf] * std::sin(angle)) +
             cotangent[i + kHalf] * (at[i + kHalf] * std::cos(angle) + at[i] * std::sin(angle));
    }
    return sum;
  };
  for (std::size_t i = 0; i < numbers.size(); ++i) {
    const double position = positions.span<std::int32_t>()[i / (2 * kSize)];
    ASSERT_NEAR(value(gradient.tensor(), static_cast<std::int64_t>(i)), testing::slope(contracted, numbers, i),
                4e-7 + position * 4e-7);
  }
}

TEST(Rope, BitsDoNotDependOnThreads) {
  std::vector<std::int32_t> values(2000);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<std::int32_t>(i % 700);
  const Buffer positions = make_positions(values), a = uniform(DType::kFloat32, {2000, 2, 32}, 1);
  const Buffer b = testing::copy(a.tensor());
  Context one = Context::cpu(1), four = Context::cpu(4);
  rope(one, a.tensor(), positions.tensor(), 10000);
  rope(four, b.tensor(), positions.tensor(), 10000);
  EXPECT_TRUE(testing::same_bits(a.tensor(), b.tensor()));
}

TEST(Rope, WrongShapesAreRefused) {
  Context context = Context::cpu(1);
  const Buffer odd(Device::kCpu, DType::kFloat32, {2, 1, 5}), x(Device::kCpu, DType::kFloat32, {2, 1, 4});
  const Buffer three = make_positions({0, 1, 2}), two = make_positions({0, 1});
  EXPECT_THROW(rope(context, odd.tensor(), two.tensor(), 10000), ShapeError);
  EXPECT_THROW(rope(context, x.tensor(), three.tensor(), 10000), ShapeError);
  EXPECT_THROW(rope(context, x.tensor(), two.tensor(), 0), ShapeError);
}

}  // namespace
}  // namespace tadapt

#include "kernels/norm.h"

#include <cmath>

#include "tests/kernels/testing.h"

namespace tadapt {
namespace {
using testing::uniform;
using testing::value;

TEST(RmsNorm, MatchesTheOracle) {
  for (const auto& [t, d] : std::vector<std::array<std::int64_t, 2>>{{1, 1}, {3, 7}, {5, 128}, {70, 33}, {2, 3584}}) {
    Context context = Context::cpu(2);
    const Buffer x = uniform(DType::kFloat32, {t, d}, 1, -3, 3), weight = uniform(DType::kFloat32, {d}, 2);
    const Buffer y(Device::kCpu, DType::kFloat32, {t, d});
    rms_norm(context, x.tensor(), weight.tensor(), 1e-6f, y.tensor());
    for (std::int64_t row = 0; row < t; ++row) {
      double squares = 0;
      for (std::int64_t i = 0; i < d; ++i) squares += std::pow(value(x.tensor(), row * d + i), 2);
      const double scale = 1 / std::sqrt(squares / static_cast<double>(d) + static_cast<double>(1e-6f));
      for (std::int64_t i = 0; i < d; ++i) {
        const double truth = value(weight.tensor(), i) * value(x.tensor(), row * d + i) * scale;
        ASSERT_NEAR(value(y.tensor(), row * d + i), truth, std::abs(truth) * 2e-7 + 1e-30);
      }
    }
  }
}

TEST(RmsNorm, OfZerosIsZeroAndInPlaceIsFine) {
  Context context = Context::cpu(1);
  const Buffer zeros(Device::kCpu, DType::kFloat32, {2, 5}), weight = uniform(DType::kFloat32, {5}, 1);
  rms_norm(context, zeros.tensor(), weight.tensor(), 1e-6f, zeros.tensor());
  for (const float number : zeros.span<float>()) EXPECT_EQ(number, 0.0f);
  const Buffer x = uniform(DType::kFloat32, {2, 5}, 2), y(Device::kCpu, DType::kFloat32, {2, 5});
  rms_norm(context, x.tensor(), weight.tensor(), 1e-6f, y.tensor());
  rms_norm(context, x.tensor(), weight.tensor(), 1e-6f, x.tensor());
  EXPECT_TRUE(testing::same_bits(x.tensor(), y.tensor()));
}

TEST(RmsNorm, BitsDoNotDependOnThreadsOrPosition) {
  const std::int64_t t = 1000, d = 130;
  const Buffer x = uniform(DType::kFloat32, {t, d}, 1), weight = uniform(DType::kFloat32, {d}, 2);
  const Buffer a(Device::kCpu, DType::kFloat32, {t, d}), b(Device::kCpu, DType::kFloat32, {t, d});
  Context one = Context::cpu(1), four = Context::cpu(4);
  rms_norm(one, x.tensor(), weight.tensor(), 1e-6f, a.tensor());
  rms_norm(four, x.tensor(), weight.tensor(), 1e-6f, b.tensor());
  EXPECT_TRUE(testing::same_bits(a.tensor(), b.tensor()));
  const Buffer row(Device::kCpu, DType::kFloat32, {1, d});
  rms_norm(one, x.tensor().rows(777, 778), weight.tensor(), 1e-6f, row.tensor());
  EXPECT_TRUE(testing::same_bits(a.tensor().rows(777, 778), row.tensor()));
}

TEST(RmsNorm, WrongShapesAreRefused) {
  Context context = Context::cpu(1);
  const Buffer x(Device::kCpu, DType::kFloat32, {2, 5}), weight(Device::kCpu, DType::kFloat32, {4});
  EXPECT_THROW(rms_norm(context, x.tensor(), weight.tensor(), 1e-6f, x.tensor()), ShapeError);
}

}  // namespace
}  // namespace tadapt

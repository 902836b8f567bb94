#include "kernels/norm.h"

#include <cmath>

#include "tests/kernels/finite_difference.h"
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

constexpr float kEpsilon = 0.1f;  // so large that its part in the gradient shows

/// Σ_d cotangent_d · weight_d · x_d / √(mean at² + epsilon) of one row; with at = x the normalisation itself.
double contracted(const std::vector<double>& x, const std::vector<double>& at, const std::vector<double>& factors) {
  double squares = 0, sum = 0;
  for (const double number : at) squares += number * number;
  for (std::size_t i = 0; i < x.size(); ++i) sum += factors[i] * x[i];
  return sum / std::sqrt(squares / static_cast<double>(x.size()) + static_cast<double>(kEpsilon));
}

struct BackwardOperands {
  BackwardOperands(std::int64_t t, std::int64_t d)
      : x(uniform(DType::kFloat32, {t, d}, 1, -3, 3)),
        weight(uniform(DType::kFloat32, {d}, 2)),
        cotangent(uniform(DType::kFloat32, {t, d}, 3)),
        gradient(uniform(DType::kFloat32, {t, d}, 4)) {}
  RmsNormInput input() const { return {x.tensor(), weight.tensor(), kEpsilon}; }
  Buffer x, weight, cotangent, gradient;
};

TEST(RmsNormBackward, AddsTheDerivativeOfEitherLinearisation) {
  for (const auto& [t, d] : std::vector<std::array<std::int64_t, 2>>{{0, 5}, {1, 1}, {3, 7}, {4, 16}, {70, 33}}) {
    for (const Linearisation linearisation : {Linearisation::kExact, Linearisation::kRelp}) {
      Context context = Context::cpu(2);
      const BackwardOperands o(t, d);
      const Buffer before = testing::copy(o.gradient.tensor());
      rms_norm_backward(context, o.input(), o.cotangent.tensor(), linearisation, o.gradient.tensor());
      for (std::int64_t row = 0; row < t; ++row) {
        const std::vector<double> x = testing::doubles(o.x.tensor().rows(row, row + 1));
        std::vector<double> factors = testing::doubles(o.cotangent.tensor().rows(row, row + 1));
        for (std::size_t i = 0; i < x.size(); ++i) factors[i] *= value(o.weight.tensor(), static_cast<std::int64_t>(i));
        const testing::Formula exact = [&](const auto& at) { return contracted(at, at, factors); };
        const testing::Formula frozen = [&](const auto& at) { return contracted(at, x, factors); };
        for (std::size_t i = 0; i < x.size(); ++i) {
          const std::int64_t at = row * d + static_cast<std::int64_t>(i);
          const double truth = testing::slope(linearisation == Linearisation::kExact ? exact : frozen, x, i);
          ASSERT_NEAR(value(o.gradient.tensor(), at), value(before.tensor(), at) + truth, 1e-6) << d << " " << at;
        }
      }
    }
  }
}

// Along x itself the output does not change (but for epsilon), so its gradient has no part there.
TEST(RmsNormBackward, IsOrthogonalToTheInputWithoutEpsilon) {
  Context context = Context::cpu(1);
  const BackwardOperands o(5, 64);
  for (float& number : o.gradient.span<float>()) number = 0;
  rms_norm_backward(context, {o.x.tensor(), o.weight.tensor(), 0.0f}, o.cotangent.tensor(), Linearisation::kExact,
                    o.gradient.tensor());
  for (std::int64_t t = 0; t < 5; ++t) {
    double along = 0;
    for (std::int64_t i = t * 64; i < t * 64 + 64; ++i) along += value(o.x.tensor(), i) * value(o.gradient.tensor(), i);
    EXPECT_NEAR(along, 0.0, 2e-6);
  }
}

// Scales of 1/2, 1/4 and so on: every number is exact.
TEST(RmsNormBackward, DyadicGradientsAreExact) {
  Context context = Context::cpu(1);
  const BackwardOperands o(1, 4);
  const std::vector<float> x = {2, -2, 2, 2}, weight = {1, 2, 4, 0.5f}, cotangent = {1, 3, -1, 8};
  std::copy(x.begin(), x.end(), o.x.span<float>().begin());
  std::copy(weight.begin(), weight.end(), o.weight.span<float>().begin());
  std::copy(cotangent.begin(), cotangent.end(), o.cotangent.span<float>().begin());
  for (float& number : o.gradient.span<float>()) number = 10;
  rms_norm_backward(context, {o.x.tensor(), o.weight.tensor(), 0.0f}, o.cotangent.tensor(), Linearisation::kExact,
                    o.gradient.tensor());
  // weighted: 1, 6, -4, 4; mean(x · weighted) = (2 - 12 - 8 + 8) / 4 = -2.5; shrink = -2.5 / 8
  const std::vector<double> truth = {10 + 0.5 + 0.625, 10 + 3 - 0.625, 10 - 2 + 0.625, 10 + 2 + 0.625};
  EXPECT_EQ(testing::doubles(o.gradient.tensor()), truth);
}

TEST(RmsNormBackward, BitsDoNotDependOnThreadsOrPosition) {
  const BackwardOperands a(1000, 130), b(1000, 130);
  Context one = Context::cpu(1), four = Context::cpu(4);
  rms_norm_backward(four, b.input(), b.cotangent.tensor(), Linearisation::kExact, b.gradient.tensor());
  for (std::int64_t t = 0; t < 1000; ++t) {
    const auto row = [&](const Buffer& buffer) { return buffer.tensor().rows(t, t + 1); };
    rms_norm_backward(one, {row(a.x), a.weight.tensor(), kEpsilon}, row(a.cotangent), Linearisation::kExact,
                      row(a.gradient));
  }
  EXPECT_TRUE(testing::same_bits(a.gradient.tensor(), b.gradient.tensor()));
}

TEST(RmsNormBackward, WrongShapesAreRefused) {
  Context context = Context::cpu(1);
  const BackwardOperands o(2, 5);
  EXPECT_THROW(rms_norm_backward(context, o.input(), o.weight.tensor(), Linearisation::kExact, o.gradient.tensor()),
               ShapeError);
  EXPECT_THROW(rms_norm_backward(context, o.input(), o.cotangent.tensor(), Linearisation::kExact,
                                 o.gradient.tensor().rows(0, 1)),
               ShapeError);
}

}  // namespace
}  // namespace tadapt

#include "kernels/losses.h"

#include <cmath>
#include <limits>

#include "kernels/pointwise.h"
#include "tests/kernels/finite_difference.h"
#include "tests/kernels/testing.h"

namespace tadapt {
namespace {
using testing::same_bits;
using testing::uniform;
using testing::value;

TEST(SquaredError, MatchesTheOracleAndItsGradientIsTheDerivative) {
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    for (const auto& [t, d] : std::vector<std::array<std::int64_t, 2>>{{1, 1}, {5, 7}, {40, 130}, {1000, 64}}) {
      Context context = Context::cpu(2);
      const Buffer prediction = uniform(DType::kFloat32, {t, d}, 1), target = uniform(dtype, {t, d}, 2);
      const Buffer gradient(Device::kCpu, DType::kFloat32, {t, d}), errors(Device::kCpu, DType::kFloat64, {t});
      const float scale = 0.3f;  // of the loss scale/2 · ‖prediction − target‖²
      squared_error(context, prediction.tensor(), target.tensor(), scale, gradient.tensor(), errors.tensor());
      for (std::int64_t row = 0; row < t; ++row) {
        double sum = 0;
        for (std::int64_t i = row * d; i < (row + 1) * d; ++i) {
          const double p = value(prediction.tensor(), i), q = value(target.tensor(), i), step = 1e-6;
          sum += (p - q) * (p - q);
          const double difference =
              static_cast<double>(scale) / 2 * (std::pow(p + step - q, 2) - std::pow(p - step - q, 2)) / (2 * step);
          ASSERT_NEAR(value(gradient.tensor(), i), difference, 1e-7);
        }
        ASSERT_NEAR(value(errors.tensor(), row), sum, sum * 3e-7);
      }
    }
  }
}

TEST(SquaredError, InPlaceAndWithoutGradientGiveTheSame) {
  Context context = Context::cpu(1);
  const Buffer prediction = uniform(DType::kFloat32, {6, 9}, 1), target = uniform(DType::kFloat32, {6, 9}, 2);
  const Buffer gradient(Device::kCpu, DType::kFloat32, {6, 9});
  const Buffer first(Device::kCpu, DType::kFloat64, {6}), second(Device::kCpu, DType::kFloat64, {6});
  squared_error(context, prediction.tensor(), target.tensor(), 2, gradient.tensor(), first.tensor());
  squared_error(context, prediction.tensor(), target.tensor(), 2, {}, second.tensor());
  EXPECT_TRUE(same_bits(first.tensor(), second.tensor()));
  squared_error(context, prediction.tensor(), target.tensor(), 2, prediction.tensor(), second.tensor());
  EXPECT_TRUE(same_bits(first.tensor(), second.tensor()));
  EXPECT_TRUE(same_bits(gradient.tensor(), prediction.tensor()));
}

// The gradient of scale/2 · ‖prediction − target‖² on top of what is there; errors as squared_error has them.
TEST(AddSquaredError, AddsTheGradientOfSquaredError) {
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    for (const auto& [t, d] : std::vector<std::array<std::int64_t, 2>>{{0, 4}, {1, 1}, {5, 7}, {600, 64}}) {
      Context one = Context::cpu(1), four = Context::cpu(4);
      const Buffer prediction = uniform(DType::kFloat32, {t, d}, 1), target = uniform(dtype, {t, d}, 2);
      const Buffer gradient = uniform(DType::kFloat32, {t, d}, 3), before = testing::copy(gradient.tensor());
      const Buffer plain(Device::kCpu, DType::kFloat32, {t, d});
      const Buffer errors(Device::kCpu, DType::kFloat64, {t}), others(Device::kCpu, DType::kFloat64, {t});
      squared_error(one, prediction.tensor(), target.tensor(), 0.3f, plain.tensor(), others.tensor());
      add_squared_error(four, prediction.tensor(), target.tensor(), 0.3f, gradient.tensor(), errors.tensor());
      EXPECT_TRUE(same_bits(errors.tensor(), others.tensor()));
      add_to(one, before.tensor(), plain.tensor());
      EXPECT_TRUE(same_bits(gradient.tensor(), plain.tensor()));
      for (std::int64_t i = 0; i < t * d; ++i) {
        const testing::Formula loss = [&](const std::vector<double>& x) {
          return 0.15 * std::pow(x[0] - value(target.tensor(), i), 2);
        };
        const double slope = testing::slope(loss, {value(prediction.tensor(), i)}, 0);
        ASSERT_NEAR(value(gradient.tensor(), i), value(before.tensor(), i) + slope, 3e-7);
      }
    }
  }
  Context context = Context::cpu(1);
  const Buffer x(Device::kCpu, DType::kFloat32, {3, 4}), errors(Device::kCpu, DType::kFloat64, {3});
  EXPECT_THROW(add_squared_error(context, x.tensor(), x.tensor(), 1, {}, errors.tensor()), ShapeError);
}

TEST(SquaredError, DyadicErrorsAreExact) {
  Context context = Context::cpu(1);
  const Buffer prediction(Device::kCpu, DType::kFloat32, {1, 37}), target(Device::kCpu, DType::kBFloat16, {1, 37});
  double truth = 0;
  for (std::size_t i = 0; i < 37; ++i) {
    prediction.span<float>()[i] = static_cast<float>(i) / 4;
    truth += static_cast<double>(i * i) / 16;
  }
  const Buffer errors(Device::kCpu, DType::kFloat64, {1});
  squared_error(context, prediction.tensor(), target.tensor(), 1, {}, errors.tensor());
  EXPECT_EQ(value(errors.tensor(), 0), truth);
  row_square_norms(context, prediction.tensor(), errors.tensor());
  EXPECT_EQ(value(errors.tensor(), 0), truth);
}

TEST(RowTotal, AddsEveryRow) {
  Context context = Context::cpu(2);
  const Buffer rows(Device::kCpu, DType::kFloat64, {1001}), total(Device::kCpu, DType::kFloat64, {1});
  for (std::size_t t = 0; t < 1001; ++t) rows.span<double>()[t] = static_cast<double>(t) / 8;
  row_total(context, rows.tensor(), total.tensor());
  EXPECT_EQ(value(total.tensor(), 0), 1000.0 * 1001.0 / 16.0);
  row_total(context, rows.tensor().rows(0, 0), total.tensor());
  EXPECT_EQ(value(total.tensor(), 0), 0.0);
}

TEST(RowSquareNorms, MatchTheOracle) {
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    Context context = Context::cpu(2);
    const Buffer x = uniform(dtype, {300, 131}, 1), norms(Device::kCpu, DType::kFloat64, {300});
    row_square_norms(context, x.tensor(), norms.tensor());
    for (std::int64_t t = 0; t < 300; ++t) {
      double sum = 0;
      for (std::int64_t i = 0; i < 131; ++i) sum += std::pow(value(x.tensor(), t * 131 + i), 2);
      ASSERT_NEAR(value(norms.tensor(), t), sum, sum * 1e-14);
    }
  }
}

struct KlBuffers {
  explicit KlBuffers(std::int64_t t)
      : kl(Device::kCpu, DType::kFloat64, {t}),
        target_argmax(Device::kCpu, DType::kInt32, {t}),
        argmax(Device::kCpu, DType::kInt32, {t}),
        top(Device::kCpu, DType::kFloat32, {t}) {}
  TokenKlOutput out() const { return {kl.tensor(), target_argmax.tensor(), argmax.tensor(), top.tensor()}; }
  Buffer kl, target_argmax, argmax, top;
};

/// log Σ e^x, with its argmax (the first).
struct LogSum {
  double value = 0;
  std::int64_t argmax = 0;
};
LogSum log_sum(const Tensor& x, std::int64_t row, std::int64_t n) {
  LogSum result;
  for (std::int64_t i = 1; i < n; ++i) {
    if (value(x, row * n + i) > value(x, row * n + result.argmax)) result.argmax = i;
  }
  const double largest = value(x, row * n + result.argmax);
  double sum = 0;
  for (std::int64_t i = 0; i < n; ++i) sum += std::exp(value(x, row * n + i) - largest);
  result.value = largest + std::log(sum);
  return result;
}

TEST(TokenKl, MatchesTheOracle) {
  for (const auto& [t, n] : std::vector<std::array<std::int64_t, 2>>{{1, 1}, {7, 2}, {9, 17}, {30, 511}, {2, 20000}}) {
    for (const float spread : {0.01f, 2.0f, 30.0f}) {
      Context context = Context::cpu(2);
      const Buffer target = uniform(DType::kFloat32, {t, n}, 1, -spread, spread);
      const Buffer model = uniform(DType::kFloat32, {t, n}, 2, -spread, spread);
      const KlBuffers found(t);
      token_kl(context, target.tensor(), model.tensor(), found.out());
      for (std::int64_t row = 0; row < t; ++row) {
        const LogSum p = log_sum(target.tensor(), row, n), q = log_sum(model.tensor(), row, n);
        double kl = 0;
        for (std::int64_t i = 0; i < n; ++i) {
          const double log_p = value(target.tensor(), row * n + i) - p.value;
          kl += std::exp(log_p) * (log_p - (value(model.tensor(), row * n + i) - q.value));
        }
        const auto at = static_cast<std::size_t>(row);
        ASSERT_NEAR(found.kl.span<double>()[at], kl, 2e-7 + 1e-6 * kl) << n << " " << spread;
        ASSERT_EQ(found.target_argmax.span<std::int32_t>()[at], p.argmax);
        ASSERT_EQ(found.argmax.span<std::int32_t>()[at], q.argmax);
        const double top = std::exp(value(target.tensor(), row * n + p.argmax) - p.value);
        ASSERT_NEAR(static_cast<double>(found.top.span<float>()[at]), top, top * 1e-6);
      }
    }
  }
}

TEST(TokenKl, IsExactlyZeroForEqualLogitsAndIgnoresAShift) {
  Context context = Context::cpu(1);
  const Buffer target = uniform(DType::kFloat32, {5, 333}, 1, -8, 8), shifted = testing::copy(target.tensor());
  const KlBuffers found(5);
  token_kl(context, target.tensor(), target.tensor(), found.out());
  for (const double kl : found.kl.span<double>()) EXPECT_EQ(kl, 0.0);
  for (float& number : shifted.span<float>()) number += 3.0f;
  token_kl(context, target.tensor(), shifted.tensor(), found.out());
  for (const double kl : found.kl.span<double>()) EXPECT_NEAR(kl, 0.0, 1e-6);
}

TEST(TokenKl, TiesGoToTheLowestId) {
  Context context = Context::cpu(1);
  for (const std::int64_t n : {2, 15, 16, 17, 100}) {
    const Buffer flat(Device::kCpu, DType::kFloat32, {1, n}), model(Device::kCpu, DType::kFloat32, {1, n});
    model.span<float>().back() = 1;
    model.span<float>()[static_cast<std::size_t>(n / 2)] = 1;
    const KlBuffers found(1);
    token_kl(context, flat.tensor(), model.tensor(), found.out());
    EXPECT_EQ(found.target_argmax.span<std::int32_t>()[0], 0);
    EXPECT_EQ(found.argmax.span<std::int32_t>()[0], n / 2);
    EXPECT_FLOAT_EQ(found.top.span<float>()[0], 1.0f / static_cast<float>(n));
  }
}

TEST(TokenKl, ANanInARowIsANanInItsResultOnly) {
  Context context = Context::cpu(1);
  for (const std::int64_t where : {0, 5, 19}) {
    const Buffer target = uniform(DType::kFloat32, {3, 20}, 1), model = uniform(DType::kFloat32, {3, 20}, 2);
    model.span<float>()[static_cast<std::size_t>(20 + where)] = std::numeric_limits<float>::quiet_NaN();
    const KlBuffers found(3);
    token_kl(context, target.tensor(), model.tensor(), found.out());
    EXPECT_FALSE(std::isnan(found.kl.span<double>()[0]));
    EXPECT_TRUE(std::isnan(found.kl.span<double>()[1])) << where;
    EXPECT_FALSE(std::isnan(found.kl.span<double>()[2]));
  }
}

TEST(Losses, BitsDoNotDependOnThreadsOrPosition) {
  const std::int64_t t = 700, n = 301;
  const Buffer a = uniform(DType::kFloat32, {t, n}, 1), b = uniform(DType::kFloat32, {t, n}, 2);
  const KlBuffers one(t), four(t), row(1);
  Context single = Context::cpu(1), many = Context::cpu(4);
  token_kl(single, a.tensor(), b.tensor(), one.out());
  token_kl(many, a.tensor(), b.tensor(), four.out());
  EXPECT_TRUE(same_bits(one.kl.tensor(), four.kl.tensor()));
  EXPECT_TRUE(same_bits(one.top.tensor(), four.top.tensor()));
  token_kl(many, a.tensor().rows(600, 601), b.tensor().rows(600, 601), row.out());
  EXPECT_TRUE(same_bits(one.kl.tensor().rows(600, 601), row.kl.tensor()));
  squared_error(single, a.tensor(), b.tensor(), 1, {}, one.kl.tensor());
  squared_error(many, a.tensor(), b.tensor(), 1, {}, four.kl.tensor());
  EXPECT_TRUE(same_bits(one.kl.tensor(), four.kl.tensor()));
}

TEST(Losses, WrongShapesAreRefused) {
  Context context = Context::cpu(1);
  const Buffer x(Device::kCpu, DType::kFloat32, {3, 4}), other(Device::kCpu, DType::kFloat32, {3, 5});
  const Buffer floats(Device::kCpu, DType::kFloat32, {3});
  const KlBuffers found(3), short_one(2);
  EXPECT_THROW(squared_error(context, x.tensor(), other.tensor(), 1, {}, found.kl.tensor()), ShapeError);
  EXPECT_THROW(squared_error(context, x.tensor(), x.tensor(), 1, other.tensor(), found.kl.tensor()), ShapeError);
  EXPECT_THROW(squared_error(context, x.tensor(), x.tensor(), 1, {}, floats.tensor()), ShapeError);
  EXPECT_THROW(row_square_norms(context, x.tensor(), short_one.kl.tensor()), ShapeError);
  EXPECT_THROW(token_kl(context, x.tensor(), other.tensor(), found.out()), ShapeError);
  EXPECT_THROW(token_kl(context, x.tensor(), x.tensor(), short_one.out()), ShapeError);
  const Buffer nothing(Device::kCpu, DType::kFloat32, {3, 0});
  EXPECT_THROW(token_kl(context, nothing.tensor(), nothing.tensor(), found.out()), ShapeError);
}

}  // namespace
}  // namespace tadapt

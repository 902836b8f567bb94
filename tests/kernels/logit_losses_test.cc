// Losses of next-token distributions against softmax and finite differences in double.
#include "kernels/logit_losses.h"

#include <cmath>
#include <limits>

#include "tests/kernels/finite_difference.h"
#include "tests/kernels/testing.h"

namespace tadapt {
namespace {
using testing::same_bits;
using testing::uniform;
using testing::value;
using Numbers = std::vector<double>;

Numbers log_softmax(Numbers x) {
  double largest = x[0], sum = 0;
  for (const double number : x) largest = std::max(largest, number);
  for (const double number : x) sum += std::exp(number - largest);
  for (double& number : x) number -= largest + std::log(sum);
  return x;
}
double kl(const Numbers& target, const Numbers& logits) {
  const Numbers log_p = log_softmax(target), log_q = log_softmax(logits);
  double sum = 0;
  for (std::size_t i = 0; i < log_p.size(); ++i) sum += std::exp(log_p[i]) * (log_p[i] - log_q[i]);
  return sum;
}

Buffer ints(const std::vector<std::int32_t>& values) {
  Buffer buffer(Device::kCpu, DType::kInt32, {static_cast<std::int64_t>(values.size())});
  std::ranges::copy(values, buffer.span<std::int32_t>().begin());
  return buffer;
}

struct Operands {
  Operands(std::int64_t r, std::int64_t v, float spread = 3)
      : target(uniform(DType::kFloat32, {r, v}, 1, -spread, spread)),
        logits(uniform(DType::kFloat32, {r, v}, 2, -spread, spread)),
        weights(uniform(DType::kFloat32, {r}, 3, 0.1f, 2)),
        losses(Device::kCpu, DType::kFloat64, {r}),
        before(testing::copy(logits.tensor())),
        labels(Device::kCpu, DType::kInt32, {r}) {
    for (std::int64_t i = 0; i < r; ++i)
      labels.span<std::int32_t>()[static_cast<std::size_t>(i)] = static_cast<std::int32_t>(i * 7919 % v);
  }
  void kl_loss(Context& context) const {
    tadapt::kl_loss(context, target.tensor(), weights.tensor(), logits.tensor(), losses.tensor());
  }
  void next_token_loss(Context& context) const {
    tadapt::next_token_loss(context, labels.tensor(), weights.tensor(), logits.tensor(), losses.tensor());
  }
  Numbers row(const Buffer& buffer, std::int64_t r) const { return testing::doubles(buffer.tensor().rows(r, r + 1)); }
  Buffer target, logits, weights, losses, before, labels;
};

/// Value and, at up to 40 of its numbers, gradient of every row, against loss(r, logits).
template <class Loss>
void expect_matches(const Operands& o, Loss loss) {
  for (std::int64_t r = 0; r < o.losses.tensor().size(0); ++r) {
    const Numbers x = o.row(o.before, r), gradient = o.row(o.logits, r);
    const testing::Formula formula = [&](const Numbers& at) { return loss(r, at); };
    const double truth = formula(x);
    ASSERT_NEAR(value(o.losses.tensor(), r), truth, 3e-7 + 1e-6 * std::abs(truth)) << "V " << x.size() << " row " << r;
    for (std::size_t i = 0; i < x.size(); i += 1 + x.size() / 40) {
      const double slope = value(o.weights.tensor(), r) * testing::slope(formula, x, i);
      ASSERT_NEAR(gradient[i], slope, 1e-6) << "V " << x.size() << " row " << r << " " << i;
    }
  }
}

TEST(KlLoss, MatchesTheOracleAndItsGradientIsTheDerivative) {
  // Odd sizes, one block of a row, its borders, several blocks.
  for (const auto& [r, v] :
       std::vector<std::array<std::int64_t, 2>>{{0, 5}, {1, 1}, {7, 2}, {5, 17}, {3, 1024}, {2, 1025}, {2, 5000}}) {
    for (const float spread : {0.01f, 2.0f, 30.0f}) {
      Context context = Context::cpu(2);
      const Operands o(r, v, spread);
      o.kl_loss(context);
      expect_matches(o, [&](std::int64_t row, const Numbers& x) { return kl(o.row(o.target, row), x); });
    }
  }
}

TEST(NextTokenLoss, MatchesTheOracleAndItsGradientIsTheDerivative) {
  for (const auto& [r, v] :
       std::vector<std::array<std::int64_t, 2>>{{0, 5}, {1, 1}, {7, 2}, {5, 17}, {3, 1024}, {2, 1025}, {2, 5000}}) {
    for (const float spread : {0.01f, 2.0f, 30.0f}) {
      Context context = Context::cpu(2);
      const Operands o(r, v, spread);
      o.next_token_loss(context);
      expect_matches(o, [&](std::int64_t row, const Numbers& x) {
        const auto label = o.labels.span<std::int32_t>()[static_cast<std::size_t>(row)];
        return -log_softmax(x)[static_cast<std::size_t>(label)];
      });
    }
  }
}

TEST(KlLoss, IsExactlyZeroForEqualLogits) {
  Context context = Context::cpu(1);
  const Operands o(5, 3333, 8);
  tadapt::kl_loss(context, o.before.tensor(), o.weights.tensor(), o.logits.tensor(), o.losses.tensor());
  for (const double loss : o.losses.span<double>()) EXPECT_EQ(loss, 0.0);
  for (const float number : o.logits.span<float>()) EXPECT_EQ(number, 0.0f);
}

// Two equal logits: probabilities are 1/2.
TEST(LogitLosses, DyadicGradientsAreExact) {
  Context context = Context::cpu(1);
  const Operands o(1, 2);
  for (const Buffer* buffer : {&o.target, &o.logits}) std::ranges::fill(buffer->span<float>(), 5.0f);
  o.target.span<float>()[1] = -200;  // its probability is 0
  o.weights.span<float>()[0] = 0.5f;
  o.kl_loss(context);
  EXPECT_EQ(testing::doubles(o.logits.tensor()), (Numbers{-0.25, 0.25}));
  EXPECT_NEAR(value(o.losses.tensor(), 0), std::log(2.0), 1e-15);
  std::ranges::fill(o.logits.span<float>(), -7.0f);
  o.labels.span<std::int32_t>()[0] = 1;
  o.next_token_loss(context);
  EXPECT_EQ(testing::doubles(o.logits.tensor()), (Numbers{0.25, -0.25}));
  EXPECT_NEAR(value(o.losses.tensor(), 0), std::log(2.0), 1e-15);
}

TEST(LogitLosses, StayFiniteWhereLogitsAreHuge) {
  Context context = Context::cpu(1);
  for (const bool distils : {true, false}) {
    const Operands o(4, 2500, 1e30f);
    distils ? o.kl_loss(context) : o.next_token_loss(context);
    for (const double loss : o.losses.span<double>()) EXPECT_TRUE(std::isfinite(loss) && loss >= 0) << loss;
    for (const float number : o.logits.span<float>()) ASSERT_TRUE(std::abs(number) <= 2.0f);
  }
}

TEST(LogitLosses, RowsWithoutWeightCountForNothing) {
  Context context = Context::cpu(1);
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (const bool distils : {true, false}) {
    const Operands o(3, 20);
    o.weights.span<float>()[1] = 0;
    o.labels.span<std::int32_t>()[1] = -100;
    o.logits.span<float>()[25] = o.target.span<float>()[26] = nan;
    distils ? o.kl_loss(context) : o.next_token_loss(context);
    EXPECT_EQ(value(o.losses.tensor(), 1), 0.0);
    for (const double number : o.row(o.logits, 1)) EXPECT_EQ(number, 0.0);
    EXPECT_GT(value(o.losses.tensor(), 0), 0.0);
    EXPECT_GT(value(o.losses.tensor(), 2), 0.0);
  }
}

TEST(LogitLosses, ANanSpreadsOverItsRowOnly) {
  Context context = Context::cpu(1);
  for (const std::int64_t where : {0, 5, 19}) {
    for (const bool distils : {true, false}) {
      const Operands o(3, 20);
      o.logits.span<float>()[static_cast<std::size_t>(20 + where)] = std::numeric_limits<float>::quiet_NaN();
      distils ? o.kl_loss(context) : o.next_token_loss(context);
      EXPECT_TRUE(std::isnan(value(o.losses.tensor(), 1))) << where;
      for (const double number : o.row(o.logits, 1)) EXPECT_TRUE(std::isnan(number));
      for (const std::int64_t r : {0, 2}) {
        EXPECT_FALSE(std::isnan(value(o.losses.tensor(), r)));
        for (const double number : o.row(o.logits, r)) EXPECT_FALSE(std::isnan(number));
      }
    }
  }
}

TEST(NextTokenLoss, ALabelOutsideTheVocabularyIsNan) {
  Context context = Context::cpu(1);
  const Operands o(3, 20);
  o.labels.span<std::int32_t>()[0] = -100;
  o.labels.span<std::int32_t>()[2] = 20;
  o.next_token_loss(context);
  for (const std::int64_t r : {0, 2}) {
    EXPECT_TRUE(std::isnan(value(o.losses.tensor(), r)));
    for (const double number : o.row(o.logits, r)) EXPECT_TRUE(std::isnan(number));
  }
  EXPECT_GT(value(o.losses.tensor(), 1), 0.0);
}

TEST(LogitLosses, BitsDoNotDependOnThreadsOrPosition) {
  const std::int64_t r = 90, v = 2100;
  for (const bool distils : {true, false}) {
    const Operands all(r, v), single(r, v);
    Context one = Context::cpu(1), four = Context::cpu(4);
    distils ? all.kl_loss(four) : all.next_token_loss(four);
    for (std::int64_t i = 0; i < r; ++i) {
      const auto row = [&](const Buffer& buffer) { return buffer.tensor().rows(i, i + 1); };
      if (distils)
        kl_loss(one, row(single.target), row(single.weights), row(single.logits), row(single.losses));
      else
        next_token_loss(one, row(single.labels), row(single.weights), row(single.logits), row(single.losses));
    }
    EXPECT_TRUE(same_bits(all.logits.tensor(), single.logits.tensor()));
    EXPECT_TRUE(same_bits(all.losses.tensor(), single.losses.tensor()));
  }
}

TEST(LogitLosses, WrongShapesAreRefused) {
  Context context = Context::cpu(1);
  const Operands o(3, 4), other(3, 5), nothing(3, 1);
  const Tensor target = o.target.tensor(), weights = o.weights.tensor(), losses = o.losses.tensor();
  EXPECT_THROW(kl_loss(context, target, weights, other.logits.tensor(), losses), ShapeError);
  EXPECT_THROW(kl_loss(context, target, losses, o.logits.tensor(), losses), ShapeError);
  EXPECT_THROW(kl_loss(context, target, weights, o.logits.tensor(), weights), ShapeError);
  EXPECT_THROW(next_token_loss(context, weights, weights, o.logits.tensor(), losses), ShapeError);
  EXPECT_THROW(next_token_loss(context, ints({1, 2}).tensor(), weights, o.logits.tensor(), losses), ShapeError);
  const Buffer empty(Device::kCpu, DType::kFloat32, {3, 0});
  EXPECT_THROW(kl_loss(context, empty.tensor(), weights, empty.tensor(), losses), ShapeError);
}

}  // namespace
}  // namespace tadapt

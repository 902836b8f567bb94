// weight_gradient against a double loop, and the bits it promises.
#include <cmath>

#include "tests/kernels/product_oracle.h"

namespace tadapt {
namespace {
using testing::allowance;
using testing::operand;
using testing::same_bits;
using testing::uniform;
using testing::value;

void expect_gradient_matches_oracle(std::int64_t t, std::int64_t n, std::int64_t k, DType compute) {
  SCOPED_TRACE(fmt::format("T {} N {} K {} {}", t, n, k, name(compute)));
  Context context = Context::cpu(2);
  for (const DType left_type : {DType::kFloat32, DType::kBFloat16}) {
    for (const DType right_type : {DType::kFloat32, DType::kBFloat16}) {
      const Buffer left = uniform(left_type, {t, n}, 1), right = uniform(right_type, {t, k}, 2);
      const Buffer gradient = uniform(DType::kFloat32, {n, k}, 3);
      weight_gradient(context, left.tensor(), right.tensor(), compute, gradient.tensor());
      const std::vector<double> ls = operand(left.tensor(), compute), rs = operand(right.tensor(), compute);
      for (std::int64_t i = 0; i < n * k; ++i) {
        double sum = 0, magnitude = 0;
        for (std::int64_t token = 0; token < t; ++token) {
          const double term =
              ls[static_cast<std::size_t>(token * n + i / k)] * rs[static_cast<std::size_t>(token * k + i % k)];
          sum += term;
          magnitude += std::abs(term);
        }
        ASSERT_NEAR(value(gradient.tensor(), i), sum, allowance(t, magnitude)) << i;
      }
    }
  }
}

TEST(WeightGradient, MatchesTheOracle) {
  for (const DType compute : {DType::kFloat32, DType::kBFloat16}) {
    for (const auto& [t, n, k] : std::vector<std::array<std::int64_t, 3>>{
             {1, 1, 1}, {1, 9, 5}, {17, 1, 3}, {33, 130, 64}, {128, 65, 7}, {5, 3, 2050}, {300, 20, 31}, {2, 70, 1}}) {
      expect_gradient_matches_oracle(t, n, k, compute);
    }
  }
}

TEST(WeightGradient, WithoutTokensIsZero) {
  Context context = Context::cpu(2);
  const Buffer gradient = uniform(DType::kFloat32, {3, 4}, 1);
  weight_gradient(context, Tensor(nullptr, DType::kFloat32, {0, 3}), Tensor(nullptr, DType::kFloat32, {0, 4}),
                  DType::kFloat32, gradient.tensor());
  for (const float number : gradient.span<float>()) EXPECT_EQ(number, 0.0f);
}

TEST(WeightGradient, BitsDoNotDependOnThreads) {
  for (const DType compute : {DType::kFloat32, DType::kBFloat16}) {
    for (const auto& [t, n, k] :
         std::vector<std::array<std::int64_t, 3>>{{128, 512, 128}, {77, 300, 2100}, {1000, 33, 70}, {3, 1000, 9}}) {
      const Buffer left = uniform(DType::kFloat32, {t, n}, 1), right = uniform(DType::kFloat32, {t, k}, 2);
      const Buffer first(Device::kCpu, DType::kFloat32, {n, k}), other(Device::kCpu, DType::kFloat32, {n, k});
      Context one = Context::cpu(1);
      weight_gradient(one, left.tensor(), right.tensor(), compute, first.tensor());
      for (const int threads : {2, 3, 4}) {
        Context context = Context::cpu(threads);
        weight_gradient(context, left.tensor(), right.tensor(), compute, other.tensor());
        EXPECT_TRUE(same_bits(first.tensor(), other.tensor())) << threads << " threads, T " << t;
      }
    }
  }
}

TEST(WeightGradient, ManyLeafLengthsInOneContextKeepTheirBits) {
  Context kept = Context::cpu(1);
  for (std::int64_t t = 1; t <= 80; ++t) {
    const Buffer left = uniform(DType::kFloat32, {t, 5}, 1), right = uniform(DType::kFloat32, {t, 6}, 2);
    const Buffer a(Device::kCpu, DType::kFloat32, {5, 6}), b(Device::kCpu, DType::kFloat32, {5, 6});
    Context fresh = Context::cpu(1);
    weight_gradient(kept, left.tensor(), right.tensor(), DType::kFloat32, a.tensor());
    weight_gradient(fresh, left.tensor(), right.tensor(), DType::kFloat32, b.tensor());
    ASSERT_TRUE(same_bits(a.tensor(), b.tensor())) << t;
  }
}

}  // namespace
}  // namespace tadapt

// The adapter's own maths: norms, counts, and the sparsity term's gradients against finite differences.
#include "kernels/features.h"

#include <cmath>

#include "tests/kernels/testing.h"

namespace tadapt {
namespace {
using testing::doubles;
using testing::same_bits;
using testing::uniform;
using testing::value;

struct Size {
  std::int64_t t, f, d;
};
const std::vector<Size> kSizes = {{1, 1, 1}, {3, 5, 7}, {70, 130, 33}, {9, 300, 128}};

/// Activations: about half of them zero.
Buffer activations_of(std::int64_t t, std::int64_t f) {
  Buffer a = uniform(DType::kFloat32, {t, f}, 1);
  for (float& number : a.span<float>()) number = number > 0 ? number : 0.0f;
  return a;
}

/// Σ_ti a_ti ‖W_dec,i‖ with a = ReLU(pre), in double: what the sparsity term is, up to its coefficient.
double sparsity(const std::vector<double>& pre, const std::vector<double>& decoder, const Size& s) {
  double total = 0;
  for (std::int64_t i = 0; i < s.f; ++i) {
    double squares = 0, activation = 0;
    for (std::int64_t d = 0; d < s.d; ++d) squares += std::pow(decoder[static_cast<std::size_t>(i * s.d + d)], 2);
    for (std::int64_t t = 0; t < s.t; ++t) activation += std::max(0.0, pre[static_cast<std::size_t>(t * s.f + i)]);
    total += activation * std::sqrt(squares);
  }
  return total;
}

TEST(DecoderNorms, MatchTheOracle) {
  for (const Size& s : kSizes) {
    Context context = Context::cpu(2);
    const Buffer decoder = uniform(DType::kFloat32, {s.f, s.d}, 1), norms = uniform(DType::kFloat32, {s.f}, 2);
    decoder_norms(context, decoder.tensor(), norms.tensor());
    for (std::int64_t i = 0; i < s.f; ++i) {
      double squares = 0;
      for (std::int64_t d = 0; d < s.d; ++d) squares += std::pow(value(decoder.tensor(), i * s.d + d), 2);
      EXPECT_FLOAT_EQ(norms.span<float>()[static_cast<std::size_t>(i)], static_cast<float>(std::sqrt(squares)));
    }
  }
}

TEST(WeightedActivations, MatchTheOracle) {
  Context context = Context::cpu(2);
  const Buffer sums = uniform(DType::kFloat32, {333}, 1, 0, 9), norms = uniform(DType::kFloat32, {333}, 2, 0, 1);
  const Buffer total(Device::kCpu, DType::kFloat64, {1});
  weighted_activations(context, sums.tensor(), norms.tensor(), total.tensor());
  long double truth = 0;
  for (std::int64_t i = 0; i < 333; ++i)
    truth += static_cast<long double>(value(sums.tensor(), i)) * value(norms.tensor(), i);
  EXPECT_NEAR(value(total.tensor(), 0), static_cast<double>(truth), 1e-9);
}

TEST(SparsityGradients, EqualFiniteDifferences) {
  const Size s{4, 6, 5};
  const float coefficient = 0.37f;
  Context context = Context::cpu(2);
  const Buffer pre = uniform(DType::kFloat32, {s.t, s.f}, 1), decoder = uniform(DType::kFloat32, {s.f, s.d}, 2);
  const Buffer a = testing::copy(pre.tensor()), norms(Device::kCpu, DType::kFloat32, {s.f});
  for (float& number : a.span<float>()) number = std::max(number, 0.0f);
  decoder_norms(context, decoder.tensor(), norms.tensor());

  const Buffer to_pre(Device::kCpu, DType::kFloat32, {s.t, s.f}), to_decoder(Device::kCpu, DType::kFloat32, {s.f, s.d});
  const Buffer sums(Device::kCpu, DType::kFloat32, {s.f});
  feature_gradient(context, a.tensor(), norms.tensor(), coefficient, to_pre.tensor());
  column_sums(context, a.tensor(), sums.tensor());
  sparsity_decoder_gradient(context, sums.tensor(), decoder.tensor(), norms.tensor(), coefficient, to_decoder.tensor());

  std::vector<double> p = doubles(pre.tensor()), w = doubles(decoder.tensor());
  const double step = 1e-6;
  const auto difference = [&](double& at) {
    const double before = at;
    at = before + step;
    const double up = sparsity(p, w, s);
    at = before - step;
    const double down = sparsity(p, w, s);
    at = before;
    return static_cast<double>(coefficient) * (up - down) / (2 * step);
  };
  for (std::size_t i = 0; i < p.size(); ++i) {
    ASSERT_NEAR(value(to_pre.tensor(), static_cast<std::int64_t>(i)), difference(p[i]), 1e-6);
  }
  for (std::size_t i = 0; i < w.size(); ++i) {
    ASSERT_NEAR(value(to_decoder.tensor(), static_cast<std::int64_t>(i)), difference(w[i]), 1e-6);
  }
}

TEST(FeatureGradient, AddsToWhatCameAndStopsWhereInactive) {
  for (const Size& s : kSizes) {
    Context context = Context::cpu(2);
    const Buffer a = activations_of(s.t, s.f), norms = uniform(DType::kFloat32, {s.f}, 2, 0, 3);
    const Buffer gradient = uniform(DType::kFloat32, {s.t, s.f}, 3), before = testing::copy(gradient.tensor());
    feature_gradient(context, a.tensor(), norms.tensor(), 0.25f, gradient.tensor());
    for (std::int64_t i = 0; i < s.t * s.f; ++i) {
      const double truth =
          value(a.tensor(), i) > 0 ? value(before.tensor(), i) + 0.25 * value(norms.tensor(), i % s.f) : 0.0;
      ASSERT_NEAR(value(gradient.tensor(), i), truth, 2e-7);
      ASSERT_TRUE(value(a.tensor(), i) > 0 || value(gradient.tensor(), i) == 0.0);
    }
  }
}

TEST(SparsityDecoderGradient, AccumulatesAndIsNothingWhereTheNormIsZero) {
  const Size s{1, 3, 4};
  Context context = Context::cpu(1);
  const Buffer decoder = uniform(DType::kFloat32, {s.f, s.d}, 1), norms(Device::kCpu, DType::kFloat32, {s.f});
  for (std::size_t d = 4; d < 8; ++d) decoder.span<float>()[d] = 0;
  decoder_norms(context, decoder.tensor(), norms.tensor());
  const Buffer sums = uniform(DType::kFloat32, {s.f}, 2, 1, 2), gradient = uniform(DType::kFloat32, {s.f, s.d}, 3);
  const Buffer before = testing::copy(gradient.tensor());
  sparsity_decoder_gradient(context, sums.tensor(), decoder.tensor(), norms.tensor(), 0.5f, gradient.tensor());
  EXPECT_TRUE(same_bits(gradient.tensor().rows(1, 2), before.tensor().rows(1, 2)));
  for (const std::int64_t i : {0, 2}) {
    for (std::int64_t at = i * s.d; at < (i + 1) * s.d; ++at) {
      const double truth = value(before.tensor(), at) +
                           0.5 * value(sums.tensor(), i) * value(decoder.tensor(), at) / value(norms.tensor(), i);
      EXPECT_NEAR(value(gradient.tensor(), at), truth, 3e-7);
    }
  }
}

TEST(ColumnSums, MatchTheOracleAndOverwrite) {
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    for (const Size& s : kSizes) {
      Context context = Context::cpu(2);
      const Buffer x = uniform(dtype, {s.t, s.f}, 1), sums = uniform(DType::kFloat32, {s.f}, 2);
      column_sums(context, x.tensor(), sums.tensor());
      for (std::int64_t n = 0; n < s.f; ++n) {
        double sum = 0;
        for (std::int64_t t = 0; t < s.t; ++t) sum += value(x.tensor(), t * s.f + n);
        EXPECT_EQ(value(sums.tensor(), n), static_cast<double>(static_cast<float>(sum)));
      }
    }
  }
  Context context = Context::cpu(1);
  const Buffer sums = uniform(DType::kFloat32, {3}, 2);
  column_sums(context, Tensor(nullptr, DType::kFloat32, {0, 3}), sums.tensor());
  for (const float number : sums.span<float>()) EXPECT_EQ(number, 0.0f);
}

TEST(Counts, CountWhatIsAboveZero) {
  for (const Size& s : kSizes) {
    Context context = Context::cpu(2);
    const Buffer a = activations_of(s.t, s.f), by_feature = uniform(DType::kFloat32, {s.f}, 2);
    const Buffer by_token(Device::kCpu, DType::kInt32, {s.t});
    active_counts(context, a.tensor(), by_feature.tensor());
    l0(context, a.tensor(), by_token.tensor());
    std::vector<int> features(static_cast<std::size_t>(s.f)), tokens(static_cast<std::size_t>(s.t));
    for (std::int64_t i = 0; i < s.t * s.f; ++i) {
      const int active = value(a.tensor(), i) > 0 ? 1 : 0;
      features[static_cast<std::size_t>(i % s.f)] += active;
      tokens[static_cast<std::size_t>(i / s.f)] += active;
    }
    for (std::int64_t i = 0; i < s.f; ++i) {
      EXPECT_EQ(value(by_feature.tensor(), i), features[static_cast<std::size_t>(i)]);
    }
    for (std::size_t t = 0; t < tokens.size(); ++t) EXPECT_EQ(by_token.span<std::int32_t>()[t], tokens[t]);
  }
}

TEST(Features, BitsDoNotDependOnThreads) {
  const Size s{900, 700, 90};
  const Buffer a = activations_of(s.t, s.f), decoder = uniform(DType::kFloat32, {s.f, s.d}, 1);
  const auto run = [&](int threads) {
    Context context = Context::cpu(threads);
    std::vector<Buffer> out;
    for (const Shape& shape : {Shape{s.f}, Shape{s.f}, Shape{s.f}, Shape{s.t, s.f}, Shape{s.f, s.d}}) {
      out.emplace_back(Device::kCpu, DType::kFloat32, shape);
    }
    decoder_norms(context, decoder.tensor(), out[0].tensor());
    column_sums(context, a.tensor(), out[1].tensor());
    active_counts(context, a.tensor(), out[2].tensor());
    feature_gradient(context, a.tensor(), out[0].tensor(), 0.1f, out[3].tensor());
    sparsity_decoder_gradient(context, out[1].tensor(), decoder.tensor(), out[0].tensor(), 0.1f, out[4].tensor());
    return out;
  };
  const std::vector<Buffer> one = run(1), four = run(4);
  for (std::size_t i = 0; i < one.size(); ++i) EXPECT_TRUE(same_bits(one[i].tensor(), four[i].tensor())) << i;
}

TEST(Features, WrongShapesAreRefused) {
  Context context = Context::cpu(1);
  const Buffer matrix(Device::kCpu, DType::kFloat32, {3, 4}), three(Device::kCpu, DType::kFloat32, {3});
  const Buffer integers(Device::kCpu, DType::kInt32, {4});
  EXPECT_THROW(decoder_norms(context, matrix.tensor(), three.tensor().rows(0, 2)), ShapeError);
  EXPECT_THROW(feature_gradient(context, matrix.tensor(), three.tensor(), 1, matrix.tensor()), ShapeError);
  EXPECT_THROW(sparsity_decoder_gradient(context, three.tensor(), matrix.tensor(), three.tensor(), 1, three.tensor()),
               ShapeError);
  EXPECT_THROW(column_sums(context, matrix.tensor(), three.tensor()), ShapeError);
  EXPECT_THROW(active_counts(context, matrix.tensor(), three.tensor()), ShapeError);
  EXPECT_THROW(l0(context, matrix.tensor(), integers.tensor()), ShapeError);
}

}  // namespace
}  // namespace tadapt

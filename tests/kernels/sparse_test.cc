// The exactly sparse ops against oracles in double, and against the dense ops they stand in for.
#include "kernels/sparse.h"

#include <algorithm>
#include <cmath>

#include "kernels/core/memory.h"
#include "kernels/matmul.h"
#include "kernels/pointwise.h"
#include "tests/kernels/finite_difference.h"
#include "tests/kernels/testing.h"

namespace tadapt {
namespace {
using testing::doubles;
using testing::same_bits;
using testing::uniform;

struct Case {
  std::int64_t t, f, d;
  double density;  ///< share of activations above zero
};
// One token, features and widths that are no multiple of anything, nothing active, half active, all active.
const std::vector<Case> kCases = {{1, 1, 1, 1.0},      {1, 70, 33, 0.5},   {5, 3, 130, 0.0}, {40, 257, 65, 0.02},
                                  {33, 129, 200, 0.5}, {17, 64, 128, 1.0}, {0, 20, 9, 0.5}};

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

/// Everything one leaf needs, in the memory that the ops view.
struct Leaf {
  Leaf(const Case& c, DType dtype)
      : size(c),
        activations(uniform(DType::kFloat32, {c.t, c.f}, 1, static_cast<float>(c.density) - 1.0f,
                            static_cast<float>(c.density))),
        decoder(uniform(dtype, {c.f, c.d}, 2)),
        cotangent(uniform(dtype, {c.t, c.d}, 3)),
        bias(uniform(DType::kFloat32, {c.d}, 4)),
        norms(uniform(DType::kFloat32, {c.f}, 5, 0, 2)),
        token_offsets(Device::kCpu, DType::kInt32, {c.t + 1}) {
    for (float& number : activations.span<float>()) number = std::max(number, 0.0f);
    pairs = count_pairs(context, activations.tensor(), token_offsets.tensor());
    for (Buffer* ints : {&features, &tokens, &places}) *ints = Buffer(Device::kCpu, DType::kInt32, {pairs});
    values = Buffer(Device::kCpu, DType::kFloat32, {pairs});
    feature_offsets = Buffer(Device::kCpu, DType::kInt32, {c.f + 1});
    gather_pairs(context, activations.tensor(), by_token());
    sort_by_feature(context, by_token(), by_feature());
  }
  SparseFeatures by_token() const { return {token_offsets.tensor(), features.tensor(), values.tensor()}; }
  FeatureMajorPairs by_feature() const { return {feature_offsets.tensor(), tokens.tensor(), places.tensor()}; }
  double a(std::int64_t t, std::int64_t i) const {
    return static_cast<double>(activations.span<float>()[at(t * size.f + i)]);
  }
  double rounded(double number) const {
    return decoder.tensor().dtype() == DType::kBFloat16
               ? static_cast<double>(round_to_bfloat16(static_cast<float>(number)))
               : number;
  }

  Context context = Context::cpu(2);
  Case size;
  Buffer activations, decoder, cotangent, bias, norms, token_offsets;
  Buffer features, tokens, places, values, feature_offsets;
  std::int64_t pairs = 0;
};

class Sparse : public ::testing::TestWithParam<std::tuple<Case, DType>> {
 protected:
  Leaf leaf_{std::get<0>(GetParam()), std::get<1>(GetParam())};
  const Case& size_ = leaf_.size;
  DType dtype_ = std::get<1>(GetParam());
};

TEST_P(Sparse, PairsAreTheActiveOnesInOrder) {
  std::vector<std::int32_t> offsets{0}, features;
  std::vector<float> values;
  for (std::int64_t t = 0; t < size_.t; ++t) {
    for (std::int64_t i = 0; i < size_.f; ++i) {
      if (leaf_.a(t, i) <= 0) continue;
      features.push_back(static_cast<std::int32_t>(i));
      values.push_back(static_cast<float>(leaf_.a(t, i)));
    }
    offsets.push_back(static_cast<std::int32_t>(features.size()));
  }
  const auto list = [](const auto& span) { return std::vector(span.begin(), span.end()); };
  EXPECT_EQ(list(leaf_.token_offsets.span<std::int32_t>()), offsets);
  EXPECT_EQ(list(leaf_.features.span<std::int32_t>()), features);
  EXPECT_EQ(list(leaf_.values.span<float>()), values);
}

TEST_P(Sparse, ByFeatureEveryPairStandsOnceInOrderOfTokens) {
  const auto starts = leaf_.feature_offsets.span<std::int32_t>();
  const auto tokens = leaf_.tokens.span<std::int32_t>(), places = leaf_.places.span<std::int32_t>();
  std::size_t next = 0;
  for (std::int64_t i = 0; i < size_.f; ++i) {
    ASSERT_EQ(static_cast<std::size_t>(starts[at(i)]), next);
    for (std::int64_t t = 0; t < size_.t; ++t) {
      if (leaf_.a(t, i) <= 0) continue;
      ASSERT_EQ(tokens[next], t) << "feature " << i;
      ASSERT_EQ(leaf_.features.span<std::int32_t>()[at(places[next])], i);
      ASSERT_EQ(static_cast<double>(leaf_.values.span<float>()[at(places[next])]), leaf_.a(t, i));
      ++next;
    }
  }
  EXPECT_EQ(static_cast<std::size_t>(starts[at(size_.f)]), next);
  EXPECT_EQ(next, at(leaf_.pairs));
}

TEST_P(Sparse, DecodeMatchesTheOracle) {
  const Buffer output = uniform(DType::kFloat32, {size_.t, size_.d}, 9);
  sparse_decode(leaf_.context, leaf_.by_token(), leaf_.decoder.tensor(), leaf_.bias.tensor(), output.tensor());
  const std::vector<double> decoder = doubles(leaf_.decoder.tensor()), bias = doubles(leaf_.bias.tensor());
  for (std::int64_t t = 0; t < size_.t; ++t) {
    for (std::int64_t d = 0; d < size_.d; ++d) {
      double truth = bias[at(d)], magnitude = std::abs(truth);
      for (std::int64_t i = 0; i < size_.f; ++i) {
        const double term = leaf_.rounded(leaf_.a(t, i)) * decoder[at(i * size_.d + d)];
        truth += term;
        magnitude += std::abs(term);
      }
      ASSERT_NEAR(testing::value(output.tensor(), t * size_.d + d), truth, 1e-5 * magnitude + 1e-30);
    }
  }
}

TEST_P(Sparse, FeatureGradientMatchesTheOracle) {
  constexpr float kCoefficient = 0.37f;
  const Buffer gradient(Device::kCpu, DType::kFloat32, {leaf_.pairs});
  sparse_feature_gradient(leaf_.context, leaf_.by_token(), leaf_.decoder.tensor(), leaf_.cotangent.tensor(),
                          {leaf_.norms.tensor(), kCoefficient}, gradient.tensor());
  const std::vector<double> decoder = doubles(leaf_.decoder.tensor()), cotangent = doubles(leaf_.cotangent.tensor());
  const auto offsets = leaf_.token_offsets.span<std::int32_t>(), features = leaf_.features.span<std::int32_t>();
  for (std::int64_t t = 0; t < size_.t; ++t) {
    for (auto p = static_cast<std::int64_t>(offsets[at(t)]); p < offsets[at(t + 1)]; ++p) {
      const std::int64_t i = features[at(p)];
      double truth = static_cast<double>(kCoefficient) * testing::value(leaf_.norms.tensor(), i);
      double magnitude = truth;
      for (std::int64_t d = 0; d < size_.d; ++d) {
        const double term = cotangent[at(t * size_.d + d)] * decoder[at(i * size_.d + d)];
        truth += term;
        magnitude += std::abs(term);
      }
      ASSERT_NEAR(testing::value(gradient.tensor(), p), truth, 1e-5 * magnitude);
    }
  }
}

TEST_P(Sparse, InputGradientMatchesTheOracleAndAdds) {
  const Buffer gradient = uniform(DType::kFloat32, {size_.t, size_.d}, 9), before = testing::copy(gradient.tensor());
  const Buffer values = uniform(DType::kFloat32, {leaf_.pairs}, 8);
  const Tensor& encoder = leaf_.decoder.tensor();
  sparse_input_gradient(leaf_.context, {leaf_.token_offsets.tensor(), leaf_.features.tensor(), values.tensor()},
                        encoder, gradient.tensor());
  const auto offsets = leaf_.token_offsets.span<std::int32_t>(), features = leaf_.features.span<std::int32_t>();
  for (std::int64_t t = 0; t < size_.t; ++t) {
    for (std::int64_t d = 0; d < size_.d; ++d) {
      double truth = testing::value(before.tensor(), t * size_.d + d), magnitude = std::abs(truth);
      for (auto p = static_cast<std::int64_t>(offsets[at(t)]); p < offsets[at(t + 1)]; ++p) {
        const double term =
            leaf_.rounded(testing::value(values.tensor(), p)) * testing::value(encoder, features[at(p)] * size_.d + d);
        truth += term;
        magnitude += std::abs(term);
      }
      ASSERT_NEAR(testing::value(gradient.tensor(), t * size_.d + d), truth, 1e-5 * magnitude + 1e-30);
    }
  }
}

// Of Σ_i c_i · ReLU(encoder_i · x) with respect to x: the pairs are those above zero, their values c_i.
TEST(SparseInputGradient, IsTheDerivativeOfTheEncoder) {
  constexpr std::int64_t kTokens = 5, kFeatures = 60, kWidth = 13;
  Context context = Context::cpu(2);
  const Buffer x = uniform(DType::kFloat32, {kTokens, kWidth}, 1),
               encoder = uniform(DType::kFloat32, {kFeatures, kWidth}, 2);
  const Buffer cotangent = uniform(DType::kFloat32, {kTokens, kFeatures}, 3);
  const Buffer activations(Device::kCpu, DType::kFloat32, {kTokens, kFeatures});
  matmul(context, x.tensor(), pack_weights(context, encoder.tensor(), Layout::kOutputInput, DType::kFloat32), {},
         Epilogue::kRelu, activations.tensor());
  const Buffer offsets(Device::kCpu, DType::kInt32, {kTokens + 1});
  const std::int64_t pairs = count_pairs(context, activations.tensor(), offsets.tensor());
  const Buffer features(Device::kCpu, DType::kInt32, {pairs}), values(Device::kCpu, DType::kFloat32, {pairs});
  const SparseFeatures by_token{offsets.tensor(), features.tensor(), values.tensor()};
  gather_pairs(context, activations.tensor(), by_token);
  for (std::int64_t t = 0; t < kTokens; ++t)
    for (auto p = at(offsets.span<std::int32_t>()[at(t)]); p < at(offsets.span<std::int32_t>()[at(t + 1)]); ++p)
      values.span<float>()[p] = cotangent.span<float>()[at(t * kFeatures + features.span<std::int32_t>()[p])];
  const Buffer gradient(Device::kCpu, DType::kFloat32, {kTokens, kWidth});
  sparse_input_gradient(context, by_token, encoder.tensor(), gradient.tensor());
  const testing::Formula loss = [&](const std::vector<double>& from) {
    double sum = 0;
    for (std::int64_t i = 0; i < kTokens * kFeatures; ++i) {
      double score = 0;
      for (std::int64_t d = 0; d < kWidth; ++d)
        score += from[at(i / kFeatures * kWidth + d)] * testing::value(encoder.tensor(), i % kFeatures * kWidth + d);
      sum += testing::value(cotangent.tensor(), i) * std::max(score, 0.0);
    }
    return sum;
  };
  for (std::int64_t i = 0; i < kTokens * kWidth; ++i)
    ASSERT_NEAR(testing::value(gradient.tensor(), i), testing::slope(loss, doubles(x.tensor()), at(i)), 3e-6) << i;
}

TEST_P(Sparse, WeightGradientMatchesTheOracleAndOverwrites) {
  const Buffer gradient = uniform(DType::kFloat32, {size_.f, size_.d}, 9);
  sparse_weight_gradient(leaf_.context, leaf_.by_feature(), leaf_.values.tensor(), leaf_.cotangent.tensor(), dtype_,
                         gradient.tensor());
  const std::vector<double> right = doubles(leaf_.cotangent.tensor());
  for (std::int64_t i = 0; i < size_.f; ++i) {
    for (std::int64_t d = 0; d < size_.d; ++d) {
      double truth = 0, magnitude = 0;
      for (std::int64_t t = 0; t < size_.t; ++t) {
        const double term = leaf_.rounded(leaf_.a(t, i)) * right[at(t * size_.d + d)];
        truth += term;
        magnitude += std::abs(term);
      }
      ASSERT_NEAR(testing::value(gradient.tensor(), i * size_.d + d), truth, 1e-5 * magnitude);
    }
  }
}

TEST_P(Sparse, SumsAndCountsHaveTheBitsOfTheDenseOps) {
  const Buffer sums(Device::kCpu, DType::kFloat32, {size_.f}), counts(Device::kCpu, DType::kFloat32, {size_.f});
  pair_sums(leaf_.context, leaf_.by_feature(), leaf_.values.tensor(), sums.tensor());
  pair_counts(leaf_.context, leaf_.by_feature(), counts.tensor());
  const Buffer dense_sums(Device::kCpu, DType::kFloat32, {size_.f}),
      dense_counts(Device::kCpu, DType::kFloat32, {size_.f});
  column_sums(leaf_.context, leaf_.activations.tensor(), dense_sums.tensor());
  active_counts(leaf_.context, leaf_.activations.tensor(), dense_counts.tensor());
  EXPECT_TRUE(same_bits(sums.tensor(), dense_sums.tensor()));
  EXPECT_TRUE(same_bits(counts.tensor(), dense_counts.tensor()));
}

TEST_P(Sparse, ThreadsDoNotChangeABit) {
  const auto run = [&](int threads) {
    Context context = Context::cpu(threads);
    std::vector<Buffer> out;
    out.emplace_back(Device::kCpu, DType::kFloat32, Shape{size_.t, size_.d});
    out.emplace_back(Device::kCpu, DType::kFloat32, Shape{leaf_.pairs});
    out.emplace_back(Device::kCpu, DType::kFloat32, Shape{size_.f, size_.d});
    out.push_back(uniform(DType::kFloat32, {size_.t, size_.d}, 9));
    sparse_decode(context, leaf_.by_token(), leaf_.decoder.tensor(), leaf_.bias.tensor(), out[0].tensor());
    sparse_feature_gradient(context, leaf_.by_token(), leaf_.decoder.tensor(), leaf_.cotangent.tensor(),
                            {leaf_.norms.tensor(), 0.5f}, out[1].tensor());
    sparse_weight_gradient(context, leaf_.by_feature(), leaf_.values.tensor(), leaf_.cotangent.tensor(), dtype_,
                           out[2].tensor());
    sparse_input_gradient(context, leaf_.by_token(), leaf_.decoder.tensor(), out[3].tensor());
    return out;
  };
  const std::vector<Buffer> one = run(1), three = run(3);
  for (std::size_t i = 0; i < one.size(); ++i) EXPECT_TRUE(same_bits(one[i].tensor(), three[i].tensor())) << i;
}

INSTANTIATE_TEST_SUITE_P(Shapes, Sparse,
                         ::testing::Combine(::testing::ValuesIn(kCases),
                                            ::testing::Values(DType::kFloat32, DType::kBFloat16)),
                         [](const auto& test) {
                           const Case& c = std::get<0>(test.param);
                           return fmt::format("T{}_F{}_D{}_density{}_{}", c.t, c.f, c.d,
                                              static_cast<int>(100 * c.density), name(std::get<1>(test.param)));
                         });

TEST(SparseFeatures, ANotANumberIsAPairSoThatItSpreads) {
  Context context = Context::cpu(1);
  const Buffer activations(Device::kCpu, DType::kFloat32, {1, 3}), offsets(Device::kCpu, DType::kInt32, {2});
  activations.span<float>()[1] = std::nanf("");
  EXPECT_EQ(count_pairs(context, activations.tensor(), offsets.tensor()), 1);
}

TEST(SparseFeatures, WrongShapesAreRefused) {
  Context context = Context::cpu(1);
  const Leaf leaf({4, 6, 5, 0.5}, DType::kFloat32);
  const Buffer small(Device::kCpu, DType::kFloat32, {3, 5}), ints(Device::kCpu, DType::kInt32, {3});
  EXPECT_THROW(count_pairs(context, leaf.activations.tensor(), ints.tensor()), ShapeError);
  EXPECT_THROW(sparse_decode(context, leaf.by_token(), leaf.decoder.tensor(), leaf.bias.tensor(), small.tensor()),
               ShapeError);
  EXPECT_THROW(sparse_weight_gradient(context, leaf.by_feature(), leaf.values.tensor(), leaf.cotangent.tensor(),
                                      DType::kFloat32, small.tensor()),
               ShapeError);
}

/// Feature i active on the first active[i] tokens; numbers whose sums are exact in fp32, in any order.
struct Skewed {
  Skewed(const std::vector<std::int32_t>& active, std::int64_t width, DType dtype)
      : offsets(Device::kCpu, DType::kInt32, {static_cast<std::int64_t>(active.size()) + 1}),
        right(dyadic(dtype, {*std::max_element(active.begin(), active.end()), width})) {
    for (std::size_t i = 0; i < active.size(); ++i)
      offsets.span<std::int32_t>()[i + 1] = offsets.span<std::int32_t>()[i] + active[i];
    const std::int32_t all = offsets.span<std::int32_t>().back();
    tokens = Buffer(Device::kCpu, DType::kInt32, {all});
    places = Buffer(Device::kCpu, DType::kInt32, {all});
    left = dyadic(DType::kFloat32, {all});
    for (std::size_t i = 0, k = 0; i < active.size(); ++i) {
      for (std::int32_t t = 0; t < active[i]; ++t, ++k) {
        tokens.span<std::int32_t>()[k] = t;
        places.span<std::int32_t>()[k] = all - 1 - static_cast<std::int32_t>(k);
      }
    }
  }
  /// Quarters in [-2, 2).
  static Buffer dyadic(DType dtype, Shape shape) {
    Buffer buffer = uniform(DType::kFloat32, shape, 3, -8, 8), rounded(Device::kCpu, dtype, shape);
    for (float& number : buffer.span<float>()) number = std::floor(number) / 4;
    Context cpu = Context::cpu(1);
    convert(cpu, buffer.tensor(), rounded.tensor());
    return rounded;
  }
  std::vector<double> truth() const {
    const std::int64_t features = offsets.tensor().size(0) - 1, width = right.tensor().size(1);
    std::vector<double> sums(at(features * width));
    for (std::int64_t i = 0; i < features; ++i) {
      for (std::int32_t k = offsets.span<std::int32_t>()[at(i)]; k < offsets.span<std::int32_t>()[at(i + 1)]; ++k) {
        const double factor = testing::value(left.tensor(), places.span<std::int32_t>()[at(k)]);
        const std::int64_t row = tokens.span<std::int32_t>()[at(k)] * width;
        for (std::int64_t d = 0; d < width; ++d)
          sums[at(i * width + d)] += factor * testing::value(right.tensor(), row + d);
      }
    }
    return sums;
  }
  Buffer offsets, tokens, places, left, right;
};

class SparseOnADevice : public ::testing::TestWithParam<Device> {
 protected:
  void SetUp() override {
    if (GetParam() == Device::kCpu) return;
    if (!testing::has_gpu()) GTEST_SKIP() << "no GPU here";
    context_ = Context::cuda(0);
  }
  std::vector<float> weight_gradient(const Skewed& skewed) {
    const DeviceView offsets(context_, skewed.offsets.tensor()), tokens(context_, skewed.tokens.tensor()),
        places(context_, skewed.places.tensor()), left(context_, skewed.left.tensor()),
        right(context_, skewed.right.tensor());
    const Buffer gradient(GetParam(), DType::kFloat32,
                          {skewed.offsets.tensor().size(0) - 1, skewed.right.tensor().size(1)});
    sparse_weight_gradient(context_, {offsets.tensor(), tokens.tensor(), places.tensor()}, left.tensor(),
                           right.tensor(), right.tensor().dtype(), gradient.tensor());
    return on_host<float>(context_, gradient.tensor());
  }

  Context context_ = Context::cpu(2);
};

// Lengths on and beside the borders of what one block sums; one slice and several, with and without packs.
TEST_P(SparseOnADevice, WeightGradientsOfSkewedFeaturesAreExact) {
  const std::vector<std::int32_t> borders = {300, 256, 255, 0, 257, 1, 512, 513, 700, 511, 768, 3, 1100};
  const std::vector<std::pair<std::vector<std::int32_t>, std::int64_t>> cases = {
      {{0, 5000, 0, 0}, 40}, {borders, 33}, {borders, 1048}, {{0, 0, 300}, 1025}};
  for (const auto& [active, width] : cases) {
    for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
      const Skewed skewed(active, width, dtype);
      const std::vector<float> found = weight_gradient(skewed);
      EXPECT_EQ(std::vector<double>(found.begin(), found.end()), skewed.truth()) << "width " << width;
    }
  }
}

TEST_P(SparseOnADevice, WeightGradientsOfSkewedFeaturesHaveTheSameBitsEveryTime) {
  Skewed skewed({0, 5000, 300, 0}, 40, DType::kBFloat16);
  skewed.left = uniform(DType::kFloat32, skewed.left.tensor().shape(), 8);
  const std::vector<float> first = weight_gradient(skewed);
  for (int again = 0; again < 3; ++again) EXPECT_EQ(weight_gradient(skewed), first);
}

INSTANTIATE_TEST_SUITE_P(Devices, SparseOnADevice, ::testing::Values(Device::kCpu, Device::kCuda),
                         [](const auto& test) { return std::string(name(test.param)); });

}  // namespace
}  // namespace tadapt

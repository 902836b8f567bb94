// causal_attention against softmax in double, and against itself under other packings and threads.
#include "kernels/attention.h"

#include <cmath>

#include "kernels/core/memory.h"
#include "tests/kernels/testing.h"

namespace tadapt {
namespace {
using testing::uniform;
using testing::value;

struct Case {
  std::int64_t heads, groups, size;
  std::vector<std::int32_t> lengths;
};

struct Operands {
  Buffer query, key, value, offsets, out;
  AttentionInput input() const { return {query.tensor(), key.tensor(), value.tensor(), offsets.tensor()}; }
};

Buffer make_offsets(const std::vector<std::int32_t>& lengths) {
  Buffer offsets(Device::kCpu, DType::kInt32, {static_cast<std::int64_t>(lengths.size()) + 1});
  for (std::size_t i = 0; i < lengths.size(); ++i) {
    offsets.span<std::int32_t>()[i + 1] = offsets.span<std::int32_t>()[i] + lengths[i];
  }
  return offsets;
}

Operands make(const Case& c, float low = -2, float high = 2) {
  Buffer offsets = make_offsets(c.lengths);
  const std::int64_t t = offsets.span<std::int32_t>().back();
  return {uniform(DType::kFloat32, {t, c.heads, c.size}, 1, low, high),
          uniform(DType::kFloat32, {t, c.groups, c.size}, 2, low, high),
          uniform(DType::kFloat32, {t, c.groups, c.size}, 3), std::move(offsets),
          Buffer(Device::kCpu, DType::kFloat32, {t, c.heads, c.size})};
}

/// The operands in double.
struct Numbers {
  explicit Numbers(const Operands& o)
      : query(testing::doubles(o.query.tensor())),
        key(testing::doubles(o.key.tensor())),
        value(testing::doubles(o.value.tensor())) {}
  std::vector<double> query, key, value;
};

/// Row t, head n, of a sequence that starts at row `start`.
std::vector<double> oracle(const Case& c, const Numbers& o, std::int64_t start, std::int64_t t, std::int64_t n) {
  const std::int64_t g = n / (c.heads / c.groups);
  const double* query = o.query.data() + (t * c.heads + n) * c.size;
  const auto row = [&](const std::vector<double>& of, std::int64_t s) {
    return of.data() + (s * c.groups + g) * c.size;
  };
  std::vector<double> scores;
  double largest = -1e300, sum = 0;
  for (std::int64_t s = start; s <= t; ++s) {
    double score = 0;
    for (std::int64_t d = 0; d < c.size; ++d) score += query[d] * row(o.key, s)[d];
    scores.push_back(score / std::sqrt(static_cast<double>(c.size)));
    largest = std::max(largest, scores.back());
  }
  std::vector<double> result(static_cast<std::size_t>(c.size));
  for (std::int64_t s = start; s <= t; ++s) {
    const double weight = std::exp(scores[static_cast<std::size_t>(s - start)] - largest);
    sum += weight;
    for (std::int64_t d = 0; d < c.size; ++d) result[static_cast<std::size_t>(d)] += weight * row(o.value, s)[d];
  }
  for (double& number : result) number /= sum;
  return result;
}

/// A device and what it multiplies in.
struct Way {
  Device device;
  DType compute;
};
std::string way_name(const ::testing::TestParamInfo<Way>& way) {
  return std::string(name(way.param.device)) + "_" + name(way.param.compute);
}

class CausalAttention : public ::testing::TestWithParam<Way> {
 protected:
  void SetUp() override {
    if (GetParam().device == Device::kCpu) return;
    if (!testing::has_gpu()) GTEST_SKIP() << "no GPU here";
    context_ = Context::cuda(0);
  }
  bool rounds() const { return GetParam().compute == DType::kBFloat16; }
  /// What is left of numbers that this way's products take.
  void round(const Operands& o) const {
    if (!rounds()) return;
    for (const Buffer* buffer : {&o.query, &o.key, &o.value})
      for (float& number : buffer->span<float>()) number = round_to_bfloat16(number);
  }
  /// Of a weighted mean of values up to 1: fp32, or weights that are rounded to bf16.
  double tolerance() const { return rounds() ? 0x1p-9 + 1e-5 : 1e-5; }
  /// Operands and `out` in host memory.
  void attend(const AttentionInput& input, const Tensor& out) {
    const DeviceView query(context_, input.query), key(context_, input.key), value(context_, input.value);
    const Buffer result(GetParam().device, DType::kFloat32, out.shape());
    causal_attention(context_, {query.tensor(), key.tensor(), value.tensor(), input.offsets, GetParam().compute},
                     result.tensor());
    copy(context_, result.tensor(), out);
    synchronize(context_);
  }

  Context context_ = Context::cpu(2);
};

INSTANTIATE_TEST_SUITE_P(Ways, CausalAttention,
                         ::testing::Values(Way{Device::kCpu, DType::kFloat32}, Way{Device::kCuda, DType::kFloat32},
                                           Way{Device::kCuda, DType::kBFloat16}),
                         way_name);

TEST_P(CausalAttention, MatchesTheOracle) {
  // More sequences than one launch takes tiles; heads of every tiling; several tiles of rows and of keys.
  const Case many{1, 1, 4, std::vector<std::int32_t>(330, 2)};
  for (const Case& c :
       {Case{1, 1, 1, {1}}, Case{2, 1, 7, {3, 1, 70}}, Case{7, 1, 16, {65, 64, 63}}, Case{4, 2, 32, {129, 2}},
        Case{28, 4, 8, {40}}, Case{3, 3, 20, {0, 5, 0, 200, 0}}, Case{2, 2, 129, {66}}, Case{2, 1, 96, {140, 3}},
        Case{1, 1, 256, {70}}, Case{1, 1, 64, {300}}, many}) {
    const Operands o = make(c);
    round(o);
    const Numbers numbers(o);
    attend(o.input(), o.out.tensor());
    std::int64_t start = 0;
    for (const std::int32_t length : c.lengths) {
      for (std::int64_t t = start; t < start + length; ++t) {
        for (std::int64_t n = 0; n < c.heads; ++n) {
          const std::vector<double> truth = oracle(c, numbers, start, t, n);
          for (std::int64_t d = 0; d < c.size; ++d) {
            ASSERT_NEAR(value(o.out.tensor(), (t * c.heads + n) * c.size + d), truth[static_cast<std::size_t>(d)],
                        tolerance())
                << "H " << c.heads << " h " << c.size << " row " << t << " head " << n;
          }
        }
      }
      start += length;
    }
  }
}

TEST_P(CausalAttention, StaysFiniteWhereScoresAreHuge) {
  const Case c{2, 1, 16, {150}};
  const Operands o = make(c, -300, 300);
  round(o);
  const Numbers numbers(o);
  attend(o.input(), o.out.tensor());
  for (std::int64_t t = 0; t < 150; ++t) {
    const std::vector<double> truth = oracle(c, numbers, 0, t, 1);
    for (std::int64_t d = 0; d < 16; ++d) {
      ASSERT_NEAR(value(o.out.tensor(), (t * 2 + 1) * 16 + d), truth[static_cast<std::size_t>(d)], 0.1);
    }
  }
}

TEST_P(CausalAttention, TheFirstTokenSeesItselfAlone) {
  const Case c{6, 2, 5, {3, 4}};
  const Operands o = make(c);
  round(o);
  attend(o.input(), o.out.tensor());
  for (const std::int64_t t : {0, 3}) {
    for (std::int64_t i = 0; i < 30; ++i) {
      EXPECT_EQ(value(o.out.tensor(), t * 30 + i), value(o.value.tensor(), t * 10 + i / 15 * 5 + i % 5));
    }
  }
}

// Rounding by hand first changes nothing.
TEST_P(CausalAttention, OperandsAreRoundedToTheComputeType) {
  for (const std::int64_t size : {12, 13}) {
    const Operands o = make({2, 1, size, {9}});
    const Buffer first(Device::kCpu, DType::kFloat32, o.out.tensor().shape());
    attend(o.input(), first.tensor());
    round(o);
    attend(o.input(), o.out.tensor());
    EXPECT_TRUE(testing::same_bits(first.tensor(), o.out.tensor())) << "h " << size;
  }
}

TEST(CausalAttentionOnTheCpu, BitsDoNotDependOnThreadsOrComputeType) {
  const Case c{6, 2, 24, {300, 17, 130}};
  const Operands o = make(c);
  Context one = Context::cpu(1);
  causal_attention(one, o.input(), o.out.tensor());
  for (const int threads : {2, 3, 4}) {
    Context context = Context::cpu(threads);
    const Buffer other(Device::kCpu, DType::kFloat32, o.out.tensor().shape());
    causal_attention(context, o.input(), other.tensor());
    EXPECT_TRUE(testing::same_bits(o.out.tensor(), other.tensor())) << threads;
    AttentionInput rounding = o.input();
    rounding.compute = DType::kBFloat16;
    causal_attention(context, rounding, other.tensor());
    EXPECT_TRUE(testing::same_bits(o.out.tensor(), other.tensor())) << threads;
  }
}

// Each sequence alone, and each prefix of it, gives the bits it has inside the pack.
TEST_P(CausalAttention, BitsDependOnTheOwnPastOnly) {
  for (const std::int64_t size : {24, 64}) {
    const Case c{3, 1, size, {100, 1, 77, 150}};
    const Operands o = make(c);
    attend(o.input(), o.out.tensor());
    std::int64_t start = 0;
    for (const std::int32_t length : c.lengths) {
      for (const std::int32_t prefix : {length, (length + 1) / 2, std::min(length, 65)}) {
        const Buffer offsets = make_offsets({prefix});
        const Buffer alone(Device::kCpu, DType::kFloat32, {prefix, c.heads, size});
        const auto part = [&](const Buffer& buffer) { return buffer.tensor().rows(start, start + prefix); };
        attend({part(o.query), part(o.key), part(o.value), offsets.tensor()}, alone.tensor());
        EXPECT_TRUE(testing::same_bits(part(o.out), alone.tensor())) << "length " << length << " prefix " << prefix;
      }
      start += length;
    }
  }
}

TEST(CausalAttentionOnTheCpu, WrongInputIsRefused) {
  Context context = Context::cpu(1);
  Operands o = make({4, 2, 8, {5, 6}});
  const auto refused = [&](AttentionInput input) {
    EXPECT_THROW(causal_attention(context, input, o.out.tensor()), ShapeError);
  };
  AttentionInput input = o.input();
  const Buffer three(Device::kCpu, DType::kFloat32, {11, 3, 8});
  input.key = input.value = three.tensor();
  refused(input);
  input = o.input();
  input.value = o.query.tensor();
  refused(input);
  input = o.input();
  input.compute = DType::kFloat16;
  refused(input);
  input = o.input();
  input.offsets = Tensor(o.offsets.data(), DType::kInt32, {3}, Device::kCuda);
  refused(input);
  const std::span<std::int32_t> offsets = o.offsets.span<std::int32_t>();
  offsets[1] = 12;
  refused(o.input());
  offsets[1] = -1;
  refused(o.input());
  offsets[1] = 5;
  offsets[2] = 10;
  refused(o.input());
  offsets[2] = 11;
  offsets[0] = 1;
  refused(o.input());
}

}  // namespace
}  // namespace tadapt

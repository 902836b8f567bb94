// bfloat16, float16, exponential and the random numbers, against definitions and published values.
#include <cmath>
#include <limits>

#include "kernels/core/convert.h"
#include "kernels/core/exponential.h"
#include "kernels/core/float16.h"
#include "kernels/core/vectorise.h"
#include "kernels/losses.h"
#include "kernels/optim.h"
#include "kernels/pointwise.h"
#include "tests/kernels/testing.h"

namespace tadapt {
namespace {

float from_bits(std::uint32_t bits) { return std::bit_cast<float>(bits); }

/// The nearest of a 16-bit format's numbers, ties to the even pattern: by search among neighbours, in double.
template <class T>
std::uint16_t nearest(double value, std::uint16_t largest_finite) {
  const std::uint16_t sign = std::signbit(value) ? 0x8000 : 0;
  const double magnitude = std::abs(value);
  const auto of = [](std::uint32_t bits) {
    T number;
    number.bits = static_cast<std::uint16_t>(bits);
    return static_cast<double>(static_cast<float>(number));
  };
  std::uint32_t low = 0, high = largest_finite;  // the last not above `magnitude`
  while (low < high) {
    const std::uint32_t middle = (low + high + 1) / 2;
    if (of(middle) <= magnitude) {
      low = middle;
    } else {
      high = middle - 1;
    }
  }
  const double above = low == largest_finite ? 2 * of(low) - of(low - 1u) : of(low + 1u);
  const double up = above - magnitude, down = magnitude - of(low);
  const bool rounds_up = up < down || (up == down && low % 2 == 1);
  return static_cast<std::uint16_t>(sign | (low + (rounds_up ? 1u : 0u)));
}

TEST(BFloat16, EveryNumberSurvivesTheTrip) {
  for (std::uint32_t bits = 0; bits < 0x10000; ++bits) {
    bfloat16 number;
    number.bits = static_cast<std::uint16_t>(bits);
    const auto wide = static_cast<float>(number);
    EXPECT_EQ(std::bit_cast<std::uint32_t>(wide), bits << 16);
    if (std::isnan(wide)) {
      EXPECT_TRUE(std::isnan(static_cast<float>(bfloat16(wide))));
    } else {
      EXPECT_EQ(bfloat16(wide).bits, bits);
    }
  }
}

// Around every bfloat16: exactly between it and the next, and one unit of float to either side.
TEST(BFloat16, RoundsToNearestEvenBetweenAllNeighbours) {
  for (std::uint32_t upper = 0; upper < 0x10000; ++upper) {
    if ((upper & 0x7f80u) == 0x7f80u) continue;
    for (const std::uint32_t lower : {0x0001u, 0x7fffu, 0x8000u, 0x8001u, 0xffffu}) {
      const float value = from_bits(upper << 16 | lower);
      ASSERT_EQ(bfloat16(value).bits, nearest<bfloat16>(static_cast<double>(value), 0x7f7f)) << value;
    }
  }
}

TEST(BFloat16, SpecialValuesStay) {
  const float infinity = std::numeric_limits<float>::infinity();
  EXPECT_EQ(static_cast<float>(bfloat16(infinity)), infinity);
  EXPECT_EQ(static_cast<float>(bfloat16(-infinity)), -infinity);
  EXPECT_EQ(static_cast<float>(bfloat16(std::numeric_limits<float>::max())), infinity);
  EXPECT_TRUE(std::isnan(static_cast<float>(bfloat16(from_bits(0x7f800001u)))));
  EXPECT_TRUE(std::isnan(static_cast<float>(bfloat16(from_bits(0xffffffffu)))));
  EXPECT_EQ(bfloat16(-0.0f).bits, 0x8000);
}

double half_by_definition(std::uint32_t bits) {
  const double sign = (bits & 0x8000u) != 0 ? -1 : 1;
  const int exponent = static_cast<int>(bits >> 10 & 31u);
  const double mantissa = bits & 1023u;
  if (exponent == 0) return sign * std::ldexp(mantissa, -24);
  return sign * std::ldexp(1024 + mantissa, exponent - 25);
}

TEST(Float16, EveryNumberIsWhatItsBitsSay) {
  for (std::uint32_t bits = 0; bits < 0x10000; ++bits) {
    float16 number;
    number.bits = static_cast<std::uint16_t>(bits);
    const auto wide = static_cast<float>(number);
    if ((bits & 0x7fffu) > 0x7c00u) {
      EXPECT_TRUE(std::isnan(wide));
      EXPECT_TRUE(std::isnan(static_cast<float>(float16(wide))));
    } else if ((bits & 0x7fffu) == 0x7c00u) {
      EXPECT_TRUE(std::isinf(wide));
      EXPECT_EQ(float16(wide).bits, bits);
    } else {
      ASSERT_EQ(static_cast<double>(wide), half_by_definition(bits)) << bits;
      ASSERT_EQ(float16(wide).bits, bits);
      EXPECT_EQ(std::signbit(wide), (bits & 0x8000u) != 0);
    }
  }
}

TEST(Float16, RoundsToNearestEvenBetweenAllNeighbours) {
  for (std::uint32_t bits = 0; bits < 0x7c00; ++bits) {
    const double here = half_by_definition(bits), next = bits == 0x7bff ? 65536 : half_by_definition(bits + 1);
    const auto middle = static_cast<float>((here + next) / 2);
    for (const float value : {middle, std::nextafterf(middle, 0.0f), std::nextafterf(middle, 1e9f)}) {
      ASSERT_EQ(float16(value).bits, nearest<float16>(static_cast<double>(value), 0x7bff)) << value;
      ASSERT_EQ(float16(-value).bits, nearest<float16>(static_cast<double>(-value), 0x7bff)) << -value;
    }
  }
}

TEST(Float16, BeyondItsRangeIsInfinity) {
  EXPECT_EQ(float16(65519.0f).bits, 0x7bff);
  EXPECT_EQ(float16(65520.0f).bits, 0x7c00);
  EXPECT_EQ(float16(-3e38f).bits, 0xfc00);
  EXPECT_EQ(float16(1e-30f).bits, 0);
}

TEST(Convert, VectorLoopsEqualTheScalarDefinition) {
  const std::int64_t n = 1003;
  Buffer wide(Device::kCpu, DType::kFloat32, {n});
  for (std::int64_t i = 0; i < n; ++i) {
    const auto words = RandomStream(1, RandomPurpose::kTest, 0, 0).words(static_cast<std::uint32_t>(i));
    wide.span<float>()[static_cast<std::size_t>(i)] = from_bits(words[0]);
  }
  const Buffer brain(Device::kCpu, DType::kBFloat16, {n}), half(Device::kCpu, DType::kFloat16, {n});
  cpu::convert_elements(wide.tensor(), brain.tensor());
  cpu::convert_elements(wide.tensor(), half.tensor());
  Buffer rounded = testing::copy(wide.tensor());
  cpu::round_to_bfloat16(rounded.span<float>());
  for (std::size_t i = 0; i < static_cast<std::size_t>(n); ++i) {
    const float value = wide.span<float>()[i];
    EXPECT_EQ(brain.span<bfloat16>()[i].bits, bfloat16(value).bits);
    EXPECT_EQ(half.span<float16>()[i].bits, float16(value).bits);
    EXPECT_EQ(std::bit_cast<std::uint32_t>(rounded.span<float>()[i]),
              std::bit_cast<std::uint32_t>(static_cast<float>(bfloat16(value))));
  }
}

// The clones of a vectorised loop (one is chosen by the machine) against the plain formulas compiled here.
TEST(Vectorise, LoopsGiveTheBitsOfThePlainFormulas) {
  Context context = Context::cpu(1);
  const std::int64_t n = 1000;
  const auto size = static_cast<std::size_t>(n);
  const Buffer x = testing::uniform(DType::kFloat32, {1, n}, 1, -20, 20),
               y = testing::uniform(DType::kFloat32, {1, n}, 2);
  const Buffer gated(Device::kCpu, DType::kFloat32, {1, n}), sums(Device::kCpu, DType::kFloat64, {1});
  const Buffer first = testing::uniform(DType::kFloat32, {n}, 3),
               second = testing::uniform(DType::kFloat32, {n}, 4, 0, 1);
  const Buffer master = testing::uniform(DType::kFloat32, {n}, 5);
  std::vector<float> w(size), m(size), v(size);
  for (std::size_t i = 0; i < size; ++i) {
    w[i] = master.span<float>()[i];
    m[i] = first.span<float>()[i];
    v[i] = second.span<float>()[i];
  }
  const AdamWStep step{.learning_rate = 0.01, .weight_decay = 0.1, .step = 3, .gradient_scale = 0.7};
  swiglu(context, x.tensor(), y.tensor(), gated.tensor());
  row_square_norms(context, x.tensor(), sums.tensor());
  const Tensor gradient = y.tensor().reshaped({n});
  adamw(context, {master.tensor(), first.tensor(), second.tensor(), gradient, {}}, step);
  const std::span<const float> numbers = x.span<float>(), others = y.span<float>();
  for (std::size_t i = 0; i < size; ++i) {
    ASSERT_EQ(gated.span<float>()[i], SwiGlu{}(numbers[i], others[i])) << i;
    const AdamWElement element(step);
    element(w[i], m[i], v[i], others[i]);
    ASSERT_EQ(master.span<float>()[i], w[i]) << i;
    ASSERT_EQ(second.span<float>()[i], v[i]) << i;
  }
  EXPECT_EQ(sums.span<double>()[0], ordered_sum(n, [&](std::int64_t i) {
              const double number = numbers[static_cast<std::size_t>(i)];
              return number * number;
            }));
}

TEST(Exponential, StaysWithinTwoUnitsOfTheTruth) {
  double worst = 0;
  for (int i = -873200; i <= 887200; ++i) {
    const float x = static_cast<float>(i) * 1e-4f;
    const double truth = std::exp(static_cast<double>(x));
    const double unit = std::ldexp(1.0, std::max(-126, std::ilogb(truth)) - 23);
    worst = std::max(worst, std::abs(static_cast<double>(exponential(x)) - truth) / unit);
  }
  EXPECT_LE(worst, 2.0);
}

TEST(Exponential, HasItsEnds) {
  const float infinity = std::numeric_limits<float>::infinity();
  EXPECT_EQ(exponential(0.0f), 1.0f);
  EXPECT_EQ(exponential(-0.0f), 1.0f);
  EXPECT_EQ(exponential(-infinity), 0.0f);
  EXPECT_EQ(exponential(-100.0f), 0.0f);
  EXPECT_EQ(exponential(infinity), infinity);
  EXPECT_EQ(exponential(100.0f), infinity);
  EXPECT_TRUE(std::isnan(exponential(std::numeric_limits<float>::quiet_NaN())));
}

// kat_vectors of Random123 1.09, philox4x32 with 10 rounds.
TEST(Random, PhiloxGivesThePublishedWords) {
  using Words = std::array<std::uint32_t, 4>;
  EXPECT_EQ(philox4x32({0, 0, 0, 0}, {0, 0}), (Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  const std::uint32_t ones = 0xffffffff;
  EXPECT_EQ(philox4x32({ones, ones, ones, ones}, {ones, ones}),
            (Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(Random, EveryPartOfTheKeyMatters) {
  const auto first = [](std::uint64_t seed, RandomPurpose purpose, std::uint64_t step, std::uint64_t sample) {
    return RandomStream(seed, purpose, step, sample).words(0);
  };
  const auto base = first(1, RandomPurpose::kTest, 1, 1);
  EXPECT_EQ(base, first(1, RandomPurpose::kTest, 1, 1));
  EXPECT_NE(base, first(2, RandomPurpose::kTest, 1, 1));
  EXPECT_NE(base, first(1 + (1ull << 32), RandomPurpose::kTest, 1, 1));
  EXPECT_NE(base, first(1, RandomPurpose::kCutoff, 1, 1));
  EXPECT_NE(base, first(1, RandomPurpose::kTest, 2, 1));
  EXPECT_NE(base, first(1, RandomPurpose::kTest, 1 + (1ull << 32), 1));
  EXPECT_NE(base, first(1, RandomPurpose::kTest, 1, 2));
  EXPECT_NE(base, first(1, RandomPurpose::kTest, 1, 1 + (1ull << 32)));
  EXPECT_NE(base, RandomStream(1, RandomPurpose::kTest, 1, 1).words(1));
}

TEST(Random, UniformAndBelowStayInsideAndFill) {
  const RandomStream stream(5, RandomPurpose::kTest, 0, 0);
  double sum = 0;
  std::array<int, 7> counts{};
  for (std::uint32_t i = 0; i < 70000; ++i) {
    const float number = stream.uniform(i);
    ASSERT_GE(number, 0.0f);
    ASSERT_LT(number, 1.0f);
    sum += static_cast<double>(number);
    ++counts.at(stream.below(i, 7));
  }
  EXPECT_NEAR(sum / 70000, 0.5, 0.005);
  for (const int count : counts) EXPECT_NEAR(count, 10000, 500);
}

}  // namespace
}  // namespace tadapt

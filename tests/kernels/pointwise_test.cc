#include "kernels/pointwise.h"

#include <cmath>

#include "tests/kernels/finite_difference.h"
#include "tests/kernels/testing.h"

namespace tadapt {
namespace {
using testing::same_bits;
using testing::uniform;
using testing::value;

TEST(SwiGluOp, MatchesTheOracle) {
  Context context = Context::cpu(2);
  const Buffer gate = uniform(DType::kFloat32, {301, 333}, 1, -90, 90), up = uniform(DType::kFloat32, {301, 333}, 2);
  const Buffer out(Device::kCpu, DType::kFloat32, {301, 333});
  swiglu(context, gate.tensor(), up.tensor(), out.tensor());
  for (std::int64_t i = 0; i < out.tensor().elements(); ++i) {
    const double g = value(gate.tensor(), i);
    const double truth = g / (1 + std::exp(-g)) * value(up.tensor(), i);
    ASSERT_NEAR(value(out.tensor(), i), truth, std::abs(truth) * 5e-7 + 1e-30) << g;
  }
}

TEST(SwiGluOp, SaturatesWithoutNan) {
  Context context = Context::cpu(1);
  const Buffer gate(Device::kCpu, DType::kFloat32, {1, 3}), one(Device::kCpu, DType::kFloat32, {1, 3});
  gate.span<float>()[0] = -1e30f;
  gate.span<float>()[1] = 1e30f;
  for (float& number : one.span<float>()) number = 1;
  swiglu(context, gate.tensor(), one.tensor(), gate.tensor());
  EXPECT_EQ(gate.span<float>()[0], 0.0f);
  EXPECT_EQ(gate.span<float>()[1], 1e30f);
  EXPECT_EQ(gate.span<float>()[2], 0.0f);
}

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

TEST(SwiGluBackwardOp, IsTheDerivativeOfEitherLinearisation) {
  for (const auto& [t, n] : std::vector<std::array<std::int64_t, 2>>{{0, 3}, {1, 1}, {3, 7}, {31, 33}}) {
    Context context = Context::cpu(2);
    const Buffer gate = uniform(DType::kFloat32, {t, n}, 1, -12, 12), up = uniform(DType::kFloat32, {t, n}, 2);
    const Buffer cotangent = uniform(DType::kFloat32, {t, n}, 3);
    const Buffer to_gate(Device::kCpu, DType::kFloat32, {t, n}), to_up(Device::kCpu, DType::kFloat32, {t, n});
    for (const Linearisation linearisation : {Linearisation::kExact, Linearisation::kRelp}) {
      swiglu_backward(context, {gate.tensor(), up.tensor()}, cotangent.tensor(), linearisation,
                      {to_gate.tensor(), to_up.tensor()});
      for (std::int64_t i = 0; i < t * n; ++i) {
        const std::vector<double> x = {value(gate.tensor(), i), value(up.tensor(), i)};
        const double c = value(cotangent.tensor(), i);
        const testing::Formula exact = [&](const auto& at) { return c * at[0] * sigmoid(at[0]) * at[1]; };
        const testing::Formula frozen = [&](const auto& at) { return 0.5 * c * at[0] * sigmoid(x[0]) * at[1]; };
        const testing::Formula& formula = linearisation == Linearisation::kExact ? exact : frozen;
        ASSERT_NEAR(value(to_gate.tensor(), i), testing::slope(formula, x, 0), 1e-6) << x[0];
        ASSERT_NEAR(value(to_up.tensor(), i), testing::slope(formula, x, 1), 3e-6) << x[0];
      }
    }
  }
}

// gate · d gate + up · d up of RelP is the cotangent times the output: contributions are complete.
TEST(SwiGluBackwardOp, RelpContributionsAddUpToTheOutput) {
  Context context = Context::cpu(1);
  const Buffer gate = uniform(DType::kFloat32, {9, 31}, 1, -9, 9), up = uniform(DType::kFloat32, {9, 31}, 2);
  const Buffer ones(Device::kCpu, DType::kFloat32, {9, 31}), out(Device::kCpu, DType::kFloat32, {9, 31});
  for (float& number : ones.span<float>()) number = 1;
  swiglu(context, gate.tensor(), up.tensor(), out.tensor());
  const Buffer g = testing::copy(gate.tensor()), u = testing::copy(up.tensor());
  swiglu_backward(context, {g.tensor(), u.tensor()}, ones.tensor(), Linearisation::kRelp, {g.tensor(), u.tensor()});
  for (std::int64_t i = 0; i < 279; ++i) {
    const double sum = value(gate.tensor(), i) * value(g.tensor(), i) + value(up.tensor(), i) * value(u.tensor(), i);
    ASSERT_NEAR(sum, value(out.tensor(), i), 1e-6 * std::abs(sum) + 1e-30);
  }
}

TEST(SwiGluBackwardOp, BitsDoNotDependOnThreadsPositionOrPlace) {
  const std::int64_t t = 300, n = 301;
  const auto gate = [&] { return uniform(DType::kFloat32, {t, n}, 1, -9, 9); };
  const auto up = [&] { return uniform(DType::kFloat32, {t, n}, 2); };
  const auto cotangent = [&] { return uniform(DType::kFloat32, {t, n}, 3); };
  Context one = Context::cpu(1), four = Context::cpu(4);
  const Buffer g = gate(), u = up(), c = cotangent();
  const Buffer to_gate(Device::kCpu, DType::kFloat32, {t, n}), to_up(Device::kCpu, DType::kFloat32, {t, n});
  for (std::int64_t row = 0; row < t; ++row) {
    const auto part = [&](const Buffer& buffer) { return buffer.tensor().rows(row, row + 1); };
    swiglu_backward(one, {part(g), part(u)}, part(c), Linearisation::kExact, {part(to_gate), part(to_up)});
  }
  const auto expect_same = [&](const Buffer& first, const Buffer& second) {
    EXPECT_TRUE(same_bits(first.tensor(), to_gate.tensor()));
    EXPECT_TRUE(same_bits(second.tensor(), to_up.tensor()));
  };
  const Buffer g2 = gate(), u2 = up(), g3 = gate(), u3 = up(), g4 = gate(), u4 = up(), c4 = cotangent();
  swiglu_backward(four, {g2.tensor(), u2.tensor()}, c.tensor(), Linearisation::kExact, {g2.tensor(), u2.tensor()});
  expect_same(g2, u2);
  swiglu_backward(four, {g3.tensor(), u3.tensor()}, c.tensor(), Linearisation::kExact, {u3.tensor(), g3.tensor()});
  expect_same(u3, g3);
  swiglu_backward(four, {g4.tensor(), u4.tensor()}, c4.tensor(), Linearisation::kExact, {c4.tensor(), u4.tensor()});
  expect_same(c4, u4);
}

TEST(SwiGluBackwardOp, SaturatesWithoutNan) {
  Context context = Context::cpu(1);
  const Buffer gate(Device::kCpu, DType::kFloat32, {1, 2}), up(Device::kCpu, DType::kFloat32, {1, 2});
  const Buffer one(Device::kCpu, DType::kFloat32, {1, 2});
  for (const Buffer* buffer : {&up, &one}) std::fill_n(buffer->span<float>().data(), 2, 1.0f);
  gate.span<float>()[0] = -1e30f;
  gate.span<float>()[1] = 1e30f;
  swiglu_backward(context, {gate.tensor(), up.tensor()}, one.tensor(), Linearisation::kExact,
                  {gate.tensor(), up.tensor()});
  EXPECT_EQ(testing::doubles(gate.tensor()), (std::vector<double>{0, 1}));
  EXPECT_EQ(up.span<float>()[0], 0.0f);
  EXPECT_EQ(up.span<float>()[1], 1e30f);
  EXPECT_THROW(swiglu_backward(context, {gate.tensor(), up.tensor()}, one.tensor(), Linearisation::kExact,
                               {gate.tensor(), up.tensor().reshaped({2})}),
               ShapeError);
}

TEST(SubtractFrom, UndoesAnExactAddition) {
  Context context = Context::cpu(2);
  const Buffer x(Device::kCpu, DType::kFloat32, {7, 33}), y(Device::kCpu, DType::kFloat32, {7, 33});
  for (std::size_t i = 0; i < 7 * 33; ++i) {
    x.span<float>()[i] = static_cast<float>(i) / 4;
    y.span<float>()[i] = 100 - static_cast<float>(i) / 2;
  }
  subtract_from(context, x.tensor(), y.tensor());
  for (std::size_t i = 0; i < 7 * 33; ++i) EXPECT_EQ(y.span<float>()[i], 100 - 0.75f * static_cast<float>(i));
}

TEST(Pointwise, BitsDoNotDependOnThreadsOrPosition) {
  const Buffer gate = uniform(DType::kFloat32, {500, 301}, 1, -9, 9), up = uniform(DType::kFloat32, {500, 301}, 2);
  const Buffer a(Device::kCpu, DType::kFloat32, {500, 301}), b(Device::kCpu, DType::kFloat32, {500, 301});
  Context one = Context::cpu(1), four = Context::cpu(4);
  swiglu(one, gate.tensor(), up.tensor(), a.tensor());
  swiglu(four, gate.tensor(), up.tensor(), b.tensor());
  EXPECT_TRUE(same_bits(a.tensor(), b.tensor()));
  for (std::int64_t row = 0; row < 500; row += 41) {
    swiglu(one, gate.tensor().rows(row, row + 1), up.tensor().rows(row, row + 1), b.tensor().rows(row, row + 1));
  }
  EXPECT_TRUE(same_bits(a.tensor(), b.tensor()));
  add_to(one, gate.tensor(), a.tensor());
  add_to(four, gate.tensor(), b.tensor());
  EXPECT_TRUE(same_bits(a.tensor(), b.tensor()));
}

TEST(AddTo, AddsInPlace) {
  Context context = Context::cpu(2);
  const Buffer x = uniform(DType::kFloat32, {7, 9, 2}, 1), y = uniform(DType::kFloat32, {7, 9, 2}, 2);
  const Buffer before = testing::copy(y.tensor());
  add_to(context, x.tensor(), y.tensor());
  for (std::int64_t i = 0; i < 126; ++i) {
    EXPECT_EQ(value(y.tensor(), i),
              static_cast<double>(static_cast<float>(value(x.tensor(), i) + value(before.tensor(), i))));
  }
  EXPECT_THROW(add_to(context, x.tensor().reshaped({126}), y.tensor()), ShapeError);
}

TEST(Embed, CopiesRowsOfEveryType) {
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16, DType::kFloat16}) {
    Context context = Context::cpu(2);
    const Buffer table = uniform(dtype, {11, 5}, 1), ids(Device::kCpu, DType::kInt32, {4});
    const std::vector<std::int32_t> chosen = {10, 0, 3, 3};
    std::copy(chosen.begin(), chosen.end(), ids.span<std::int32_t>().begin());
    const Buffer out(Device::kCpu, DType::kFloat32, {4, 5});
    embed(context, ids.tensor(), table.tensor(), out.tensor());
    for (std::int64_t i = 0; i < 20; ++i) {
      EXPECT_EQ(value(out.tensor(), i), value(table.tensor(), chosen[static_cast<std::size_t>(i / 5)] * 5 + i % 5));
    }
  }
}

TEST(Embed, NamesAnIdOutsideTheTable) {
  Context context = Context::cpu(1);
  const Buffer table = uniform(DType::kFloat32, {11, 5}, 1), out(Device::kCpu, DType::kFloat32, {3, 5});
  for (const std::int32_t wrong : {11, -1}) {
    const Buffer ids(Device::kCpu, DType::kInt32, {3});
    ids.span<std::int32_t>()[2] = wrong;
    try {
      embed(context, ids.tensor(), table.tensor(), out.tensor());
      ADD_FAILURE() << "not refused";
    } catch (const ShapeError& error) {
      EXPECT_NE(std::string(error.what()).find(fmt::format("id {} at position 2", wrong)), std::string::npos)
          << error.what();
    }
  }
}

TEST(ConvertOp, GoesBetweenAllFloatTypes) {
  Context context = Context::cpu(2);
  const Shape shape{300, 7, 50};
  for (const DType from : {DType::kFloat32, DType::kBFloat16, DType::kFloat16}) {
    for (const DType to : {DType::kFloat32, DType::kBFloat16, DType::kFloat16}) {
      const Buffer source = uniform(from, shape, 1, -1000, 1000), target(Device::kCpu, to, shape);
      convert(context, source.tensor(), target.tensor());
      for (std::int64_t i = 0; i < shape.elements(); i += 17) {
        const auto wide = static_cast<float>(value(source.tensor(), i));
        const float truth = to == DType::kFloat32    ? wide
                            : to == DType::kBFloat16 ? static_cast<float>(bfloat16(wide))
                                                     : static_cast<float>(float16(wide));
        ASSERT_EQ(value(target.tensor(), i), static_cast<double>(truth)) << name(from) << " to " << name(to);
      }
    }
  }
  const Buffer integers(Device::kCpu, DType::kInt32, {3}), floats(Device::kCpu, DType::kFloat32, {3});
  EXPECT_THROW(convert(context, integers.tensor(), floats.tensor()), ShapeError);
  EXPECT_THROW(convert(context, floats.tensor(), floats.tensor().rows(0, 2)), ShapeError);
}

}  // namespace
}  // namespace tadapt

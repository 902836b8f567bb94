#include "kernels/pointwise.h"

#include <cmath>

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

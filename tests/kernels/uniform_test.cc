#include "kernels/uniform.h"

#include "tests/kernels/testing.h"

namespace tadapt {
namespace {
using testing::same_bits;
using testing::value;

TEST(Uniform, EqualsTheStreamDrawByDraw) {
  const RandomStream stream(5, RandomPurpose::kTest, 0, 2);
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    Context one = Context::cpu(1), three = Context::cpu(3);
    const Buffer a(Device::kCpu, dtype, {70'001}), b(Device::kCpu, dtype, {70'001});
    uniform(one, stream, 0.25f, a.tensor());
    uniform(three, stream, 0.25f, b.tensor());
    EXPECT_TRUE(same_bits(a.tensor(), b.tensor()));
    double sum = 0;
    for (std::int64_t i = 0; i < 70'001; ++i) {
      const double exact = (2.0 * static_cast<double>(stream.uniform(static_cast<std::uint32_t>(i))) - 1.0) * 0.25;
      const double rounding = dtype == DType::kFloat32 ? 0x1p-24 : 0x1p-8;
      ASSERT_NEAR(value(a.tensor(), i), exact, std::abs(exact) * rounding + 1e-8) << i;
      sum += exact;
    }
    EXPECT_NEAR(sum / 70'001, 0.0, 3e-3);
  }
}

TEST(Uniform, RefusesOtherTypes) {
  Context context = Context::cpu(1);
  const Buffer numbers(Device::kCpu, DType::kFloat64, {3});
  EXPECT_THROW(uniform(context, RandomStream(1, RandomPurpose::kTest, 0, 0), 1.0f, numbers.tensor()), ShapeError);
}

}  // namespace
}  // namespace tadapt

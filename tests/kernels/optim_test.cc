#include "kernels/optim.h"

#include <cmath>
#include <limits>

#include "kernels/pointwise.h"
#include "tests/kernels/testing.h"

namespace tadapt {
namespace {
using testing::same_bits;
using testing::uniform;
using testing::value;

TEST(BlockSquareSums, MatchTheOracleOnEveryBlock) {
  for (const std::int64_t n : {0, 1, 4095, 4096, 4097, 40000, 100001}) {
    Context context = Context::cpu(2);
    const Buffer x = uniform(DType::kFloat32, {n}, 1), sums(Device::kCpu, DType::kFloat64, {sum_blocks(n)});
    block_square_sums(context, x.tensor(), sums.tensor());
    for (std::int64_t block = 0; block < sum_blocks(n); ++block) {
      double truth = 0;
      for (std::int64_t i = block * 4096; i < std::min(n, (block + 1) * 4096); ++i) {
        truth += std::pow(value(x.tensor(), i), 2);
      }
      ASSERT_NEAR(value(sums.tensor(), block), truth, truth * 1e-13);
    }
  }
}

TEST(BlockSquareSums, BitsDoNotDependOnThreadsOrShards) {
  const std::int64_t n = 50 * 4096 + 77;
  const Buffer x = uniform(DType::kFloat32, {n}, 1);
  const Buffer a(Device::kCpu, DType::kFloat64, {51}), b(Device::kCpu, DType::kFloat64, {51});
  Context one = Context::cpu(1), four = Context::cpu(4);
  block_square_sums(one, x.tensor(), a.tensor());
  block_square_sums(four, x.tensor(), b.tensor());
  EXPECT_TRUE(same_bits(a.tensor(), b.tensor()));
  const std::int64_t border = 13;
  block_square_sums(four, x.tensor().rows(0, border * 4096), b.tensor().rows(0, border));
  block_square_sums(four, x.tensor().rows(border * 4096, n), b.tensor().rows(border, 51));
  EXPECT_TRUE(same_bits(a.tensor(), b.tensor()));
}

TEST(AddWithSquareSums, GivesTheBitsOfItsTwoHalves) {
  Context context = Context::cpu(2);
  const std::int64_t n = 5 * 4096 + 77;
  const Buffer x = uniform(DType::kFloat32, {n}, 1), joined = uniform(DType::kFloat32, {n}, 2),
               apart = uniform(DType::kFloat32, {n}, 2);
  const Buffer a(Device::kCpu, DType::kFloat64, {6}), b(Device::kCpu, DType::kFloat64, {6});
  add_with_square_sums(context, x.tensor(), joined.tensor(), a.tensor());
  add_to(context, x.tensor(), apart.tensor());
  block_square_sums(context, apart.tensor(), b.tensor());
  EXPECT_TRUE(same_bits(joined.tensor(), apart.tensor()));
  EXPECT_TRUE(same_bits(a.tensor(), b.tensor()));
}

struct State {
  explicit State(std::int64_t n, DType working_type = DType::kFloat32)
      : master(uniform(DType::kFloat32, {n}, 1)),
        first(Device::kCpu, DType::kFloat32, {n}),
        second(Device::kCpu, DType::kFloat32, {n}),
        working(Device::kCpu, working_type, {n}) {}
  AdamWTensors with(const Buffer& gradient) const {
    return {master.tensor(), first.tensor(), second.tensor(), gradient.tensor(), working.tensor()};
  }
  Buffer master, first, second, working;
};

TEST(AdamW, TenStepsMatchTheFormulaInDouble) {
  const std::int64_t n = 1003;
  for (const double decay : {0.0, 0.1}) {
    Context context = Context::cpu(2);
    const State state(n);
    std::vector<double> w, m(static_cast<std::size_t>(n)), v(static_cast<std::size_t>(n));
    for (std::int64_t i = 0; i < n; ++i) w.push_back(value(state.master.tensor(), i));
    for (std::int64_t step = 1; step <= 10; ++step) {
      const Buffer gradient = uniform(DType::kFloat32, {n}, 10 + static_cast<std::uint64_t>(step));
      const AdamWStep s{.learning_rate = 1e-2, .weight_decay = decay, .step = step, .gradient_scale = 0.37};
      adamw(context, state.with(gradient), s);
      for (std::size_t i = 0; i < w.size(); ++i) {
        const double g = 0.37 * value(gradient.tensor(), static_cast<std::int64_t>(i));
        m[i] = 0.9 * m[i] + 0.1 * g;
        v[i] = 0.999 * v[i] + 0.001 * g * g;
        w[i] *= 1 - 1e-2 * decay;
        const double power = static_cast<double>(step);
        w[i] -= 1e-2 * (m[i] / (1 - std::pow(0.9, power))) / (std::sqrt(v[i] / (1 - std::pow(0.999, power))) + 1e-8);
        ASSERT_NEAR(value(state.master.tensor(), static_cast<std::int64_t>(i)), w[i], 3e-6) << "step " << step;
      }
      EXPECT_TRUE(same_bits(state.master.tensor(), state.working.tensor()));
    }
  }
}

TEST(AdamW, TheFirstStepIsTheLearningRateInTheGradientsDirection) {
  Context context = Context::cpu(1);
  const State state(2);
  const float before[] = {state.master.span<float>()[0], state.master.span<float>()[1]};
  Buffer gradient(Device::kCpu, DType::kFloat32, {2});
  gradient.span<float>()[0] = 5e-3f;
  gradient.span<float>()[1] = -700.0f;
  adamw(context, state.with(gradient), {.learning_rate = 0.125});
  EXPECT_NEAR(state.master.span<float>()[0], before[0] - 0.125f, 1e-6f);
  EXPECT_NEAR(state.master.span<float>()[1], before[1] + 0.125f, 1e-6f);
}

TEST(AdamW, ZeroGradientAndZeroMomentsChangeNothing) {
  Context context = Context::cpu(1);
  const State state(50);
  const Buffer before = testing::copy(state.master.tensor()), zero(Device::kCpu, DType::kFloat32, {50});
  adamw(context, state.with(zero), {.learning_rate = 0.1});
  EXPECT_TRUE(same_bits(before.tensor(), state.master.tensor()));
}

TEST(AdamW, WorkingCopyIsTheRoundedMasterOrAbsent) {
  Context context = Context::cpu(2);
  const std::int64_t n = 70000;
  const State state(n, DType::kBFloat16), other(n);
  const Buffer gradient = uniform(DType::kFloat32, {n}, 3);
  adamw(context, state.with(gradient), {.learning_rate = 0.1});
  for (std::size_t i = 0; i < static_cast<std::size_t>(n); ++i) {
    ASSERT_EQ(state.working.span<bfloat16>()[i].bits, bfloat16(state.master.span<float>()[i]).bits);
  }
  AdamWTensors without = other.with(gradient);
  without.working = {};
  adamw(context, without, {.learning_rate = 0.1});
  EXPECT_TRUE(same_bits(state.master.tensor(), other.master.tensor()));
}

TEST(AdamW, BitsDoNotDependOnThreadsOrShards) {
  const std::int64_t n = 100000;
  const State one(n), four(n), shards(n);
  const Buffer gradient = uniform(DType::kFloat32, {n}, 3);
  const AdamWStep step{.learning_rate = 0.01, .weight_decay = 0.2, .step = 7, .gradient_scale = 0.3};
  Context single = Context::cpu(1), many = Context::cpu(4);
  adamw(single, one.with(gradient), step);
  adamw(many, four.with(gradient), step);
  const AdamWTensors all = shards.with(gradient);
  for (const auto& [begin, end] : {std::pair<std::int64_t, std::int64_t>{0, 12345}, {12345, n}}) {
    adamw(many,
          {all.master.rows(begin, end), all.first_moment.rows(begin, end), all.second_moment.rows(begin, end),
           all.gradient.rows(begin, end), all.working.rows(begin, end)},
          step);
  }
  for (const State* other : {&four, &shards}) {
    EXPECT_TRUE(same_bits(one.master.tensor(), other->master.tensor()));
    EXPECT_TRUE(same_bits(one.first.tensor(), other->first.tensor()));
    EXPECT_TRUE(same_bits(one.second.tensor(), other->second.tensor()));
  }
}

TEST(AdamW, WrongShapesAreRefused) {
  Context context = Context::cpu(1);
  const State state(5);
  const Buffer four(Device::kCpu, DType::kFloat32, {4}), five(Device::kCpu, DType::kFloat32, {5});
  EXPECT_THROW(adamw(context, state.with(four), {}), ShapeError);
  EXPECT_THROW(adamw(context, state.with(five), {.step = 0}), ShapeError);
  AdamWTensors tensors = state.with(five);
  tensors.working = four.tensor();
  EXPECT_THROW(adamw(context, tensors, {}), ShapeError);
  tensors.working = Buffer(Device::kCpu, DType::kFloat16, {5}).tensor();
  EXPECT_THROW(adamw(context, tensors, {}), ShapeError);
}

TEST(FirstNonFinite, IsTheLowestIndex) {
  for (const int threads : {1, 4}) {
    Context context = Context::cpu(threads);
    const Buffer x = uniform(DType::kFloat32, {50000}, 1);
    EXPECT_EQ(first_non_finite(context, x.tensor()), -1);
    x.span<float>()[49999] = -std::numeric_limits<float>::infinity();
    EXPECT_EQ(first_non_finite(context, x.tensor()), 49999);
    x.span<float>()[30001] = std::numeric_limits<float>::quiet_NaN();
    EXPECT_EQ(first_non_finite(context, x.tensor()), 30001);
    x.span<float>()[0] = std::numeric_limits<float>::infinity();
    EXPECT_EQ(first_non_finite(context, x.tensor()), 0);
    x.span<float>()[0] = std::numeric_limits<float>::max();
    EXPECT_EQ(first_non_finite(context, x.tensor()), 30001);
  }
  Context context = Context::cpu(1);
  EXPECT_EQ(first_non_finite(context, Tensor(nullptr, DType::kFloat32, {0})), -1);
}

}  // namespace
}  // namespace tadapt

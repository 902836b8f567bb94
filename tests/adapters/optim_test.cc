// Schedule, parameter layout and the AdamW state.
#include <gtest/gtest.h>

#include <cmath>

#include "runtime/optim/adamw_state.h"
#include "runtime/optim/schedule.h"

namespace tadapt {
namespace {

TEST(CosineSchedule, WarmsUpFromZeroThenFallsToZero) {
  const CosineSchedule schedule{.peak = 2.0, .warmup_fraction = 0.1, .steps = 100};
  EXPECT_EQ(schedule.at(0), 0.0);
  EXPECT_DOUBLE_EQ(schedule.at(5), 1.0);
  EXPECT_DOUBLE_EQ(schedule.at(10), 2.0);
  EXPECT_DOUBLE_EQ(schedule.at(55), 1.0);
  EXPECT_NEAR(schedule.at(100), 0.0, 1e-15);
}

TEST(CosineSchedule, WithoutWarmUpStartsAtThePeak) {
  EXPECT_EQ((CosineSchedule{.peak = 3.0, .warmup_fraction = 0.05, .steps = 10}.at(0)), 3.0);
}

TEST(ParameterStore, SpansLieOnBlockBordersAndGroupsAreContiguous) {
  const ParameterStore store(Device::kCpu,
                             {{"a", {{"w", {5, 1000}}, {"b", {3}}}, {{"counts", {7}}}}, {"c", {{"w", {1}}}, {}}});
  const ParameterGroup& group = store.group(0);
  EXPECT_EQ(group.parameters[1].offset, 2 * kParameterBlock);
  EXPECT_EQ(group.trainable_elements, 3 * kParameterBlock);
  EXPECT_EQ(group.exchange_elements, 4 * kParameterBlock);
  EXPECT_EQ(store.master_views(0)["w"].shape(), (Shape{5, 1000}));
  EXPECT_EQ(store.master(1).elements(), kParameterBlock);
  EXPECT_THROW(store.master_views(0)["counts"], ShapeError);
}

class AdamWStateTest : public testing::Test {
 protected:
  AdamWStateTest() : store_(Device::kCpu, {{"a", {{"w", {3}}}, {{"counts", {2}}}}}), state_(Device::kCpu, store_) {}
  Context context_ = Context::cpu(1);
  ParameterStore store_;
  AdamWState state_;
};

TEST_F(AdamWStateTest, ClipsByTheNormOfTheTrainablePartOnly) {
  const auto gradient = parameter_views(store_.group(0), store_.gradient(0))["w"].span<float>();
  gradient[0] = 3.0f;
  gradient[1] = 4.0f;
  statistic_views(store_.group(0), store_.gradient(0))["counts"].span<float>()[0] = 1000.0f;
  state_.measure(context_, store_, 0);
  const UpdateReport report = state_.update(context_, store_, 0, {.clip_norm = 1.0}, 0.1, 0);
  EXPECT_DOUBLE_EQ(report.gradient_norm, 5.0);
  const double clip = 1.0 / (5.0 + 1e-6);
  EXPECT_NEAR(state_.first_moment(0).span<float>()[0], 0.1 * 3.0 * clip, 1e-7);
  // The first AdamW step moves every touched weight by the learning rate.
  EXPECT_NEAR(store_.master_views(0)["w"].span<float>()[1], -0.1, 1e-6);
  EXPECT_EQ(store_.master_views(0)["w"].span<float>()[2], 0.0f);
}

TEST_F(AdamWStateTest, ANonFiniteGradientChangesNothing) {
  const auto gradient = parameter_views(store_.group(0), store_.gradient(0))["w"].span<float>();
  gradient[2] = std::numeric_limits<float>::quiet_NaN();
  state_.measure(context_, store_, 0);
  const UpdateReport report = state_.update(context_, store_, 0, {.clip_norm = 1.0}, 0.1, 0);
  EXPECT_FALSE(report.finite);
  for (const float weight : store_.master(0).span<float>()) EXPECT_EQ(weight, 0.0f);
  for (const float moment : state_.second_moment(0).span<float>()) EXPECT_EQ(moment, 0.0f);
}

}  // namespace
}  // namespace tadapt

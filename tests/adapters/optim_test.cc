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

TEST(SparsityRamp, RisesFromItsShareToOne) {
  const SparsityRamp ramp{.initial = 0.25, .fraction = 0.1, .steps = 100};
  EXPECT_DOUBLE_EQ(ramp.at(0), 0.25);
  EXPECT_DOUBLE_EQ(ramp.at(5), 0.625);
  EXPECT_DOUBLE_EQ(ramp.at(10), 1.0);
  EXPECT_DOUBLE_EQ(ramp.at(99), 1.0);
  EXPECT_DOUBLE_EQ((SparsityRamp{.steps = 100}.at(0)), 1.0);
}

TEST(ClipScale, ShrinksLongGradientsOnly) {
  EXPECT_DOUBLE_EQ(clip_scale({.clip_norm = 2.0}, 1.0), 1.0);
  EXPECT_DOUBLE_EQ(clip_scale({.clip_norm = 2.0}, 8.0), 2.0 / (8.0 + 1e-6));
  EXPECT_DOUBLE_EQ(clip_scale({.clip_norm = 0.0}, 8.0), 1.0);
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

/// The first step at learning rate 0.1, clipped to a norm of 1.
void update_clipped(Context& context, AdamWState& state, ParameterStore& store, double norm) {
  const AdamWSettings settings{.clip_norm = 1.0};
  state.update(context, store, 0, settings, {.learning_rate = 0.1, .gradient_scale = clip_scale(settings, norm)});
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
  EXPECT_DOUBLE_EQ(std::sqrt(state_.square_norm(context_, 0)), 5.0);
  update_clipped(context_, state_, store_, 5.0);
  const double clip = 1.0 / (5.0 + 1e-6);
  EXPECT_NEAR(state_.first_moment(0).span<float>()[0], 0.1 * 3.0 * clip, 1e-7);
  // The first AdamW step moves every touched weight by the learning rate.
  EXPECT_NEAR(store_.master_views(0)["w"].span<float>()[1], -0.1, 1e-6);
  EXPECT_EQ(store_.master_views(0)["w"].span<float>()[2], 0.0f);
}

TEST(ShardedAdamWState, PartsTogetherAreTheWhole) {
  constexpr std::int64_t kBlocks = 3;
  const std::vector<ParameterGroupSpec> specs = {{"a", {{"w", {kBlocks * kParameterBlock}}}, {{"counts", {2}}}}};
  Context context = Context::cpu(1);
  ParameterStore whole(Device::kCpu, specs), shared(Device::kCpu, specs);
  AdamWState state(Device::kCpu, whole);
  const ParameterPart cut[] = {{0, kParameterBlock}, {kParameterBlock, 3 * kParameterBlock}, {0, 0}};
  std::vector<AdamWState> shards;
  for (const ParameterPart& part : cut) shards.emplace_back(Device::kCpu, shared, std::vector{part});
  for (std::int64_t i = 0; i < kBlocks * kParameterBlock; ++i) {
    for (const ParameterStore* store : {&whole, &shared})
      store->gradient(0).span<float>()[static_cast<std::size_t>(i)] = std::sin(static_cast<float>(i));
  }
  state.measure(context, whole, 0);
  const double norm = std::sqrt(state.square_norm(context, 0));
  update_clipped(context, state, whole, norm);
  for (AdamWState& shard : shards) {
    EXPECT_TRUE(shard.sharded());
    for (AdamWState& other : shards) {  // each measures its part for all
      other.measure(context, shared, 0);
      const auto [begin, end] = other.part(0);
      for (std::int64_t block = begin / kParameterBlock; block < end / kParameterBlock; ++block) {
        const auto at = static_cast<std::size_t>(block);
        shard.square_sums(0).span<double>()[at] = other.square_sums(0).span<double>()[at];
      }
    }
    EXPECT_EQ(std::sqrt(shard.square_norm(context, 0)), norm);
    update_clipped(context, shard, shared, norm);
    const auto [begin, end] = shard.part(0);
    EXPECT_EQ(shard.second_moment(0).elements(), end - begin);
    for (std::int64_t i = begin; i < end; ++i)
      ASSERT_EQ(shard.second_moment(0).span<float>()[static_cast<std::size_t>(i - begin)],
                state.second_moment(0).span<float>()[static_cast<std::size_t>(i)]);
  }
  for (std::size_t i = 0; i < kBlocks * kParameterBlock; ++i)
    ASSERT_EQ(shared.master(0).span<float>()[i], whole.master(0).span<float>()[i]);
  EXPECT_FALSE(state.sharded());
}

TEST(ShardedAdamWState, RefusesPartsOffTheBlocks) {
  const ParameterStore store(Device::kCpu, {{"a", {{"w", {kParameterBlock}}}, {}}});
  EXPECT_THROW(AdamWState(Device::kCpu, store, {{0, 5}}), ShapeError);
  EXPECT_THROW(AdamWState(Device::kCpu, store, {{0, 2 * kParameterBlock}}), ShapeError);
}

TEST_F(AdamWStateTest, TheNormOfANonFiniteGradientIsNotFinite) {
  const auto gradient = parameter_views(store_.group(0), store_.gradient(0))["w"].span<float>();
  gradient[2] = std::numeric_limits<float>::quiet_NaN();
  state_.measure(context_, store_, 0);
  EXPECT_FALSE(std::isfinite(state_.square_norm(context_, 0)));
}

}  // namespace
}  // namespace tadapt

// Recorded segments: the same states as a plain run, whatever is recorded and however many branches run side by side.
#include "runtime/model/recorded_segment.h"

#include "runtime/model/segments.h"
#include "tests/support/devices.h"
#include "tests/support/errors.h"
#include "tests/support/temporary_directory.h"
#include "tests/support/tiny_models.h"

namespace tadapt {
namespace {

using testing::random_ids;
using testing::write_tiny_model;

class RecordedSegmentTest : public testing::PerDevice {
 protected:
  void SetUp() override {
    PerDevice::SetUp();
    if (IsSkipped()) return;
    context_.emplace(testing::context_on(GetParam()));
    write_tiny_model(directory_ / "target", {.seed = 1});
    write_tiny_model(directory_ / "base", {.seed = 2});
    pair_.emplace(Decoder::load_pair(*context_, files_, directory_ / "target", directory_ / "base",
                                     {DType::kFloat32, Directions::kBoth}));
    batch_.append(random_ids(9, 50, 1));
    batch_.append(random_ids(14, 50, 2));
    workspace_.emplace(GetParam());
    arena_.emplace(GetParam());
    arena_->reserve(1 << 22);
    memory_.emplace(PassMemory{*workspace_, *arena_, layer_passes_});
    tokens_.place(*context_, batch_, 2);
  }
  SegmentPlan plan(int begin, int end, Recording recording) const {
    return {.decoder = *pair_, .mlps = mlps_, .trained = nullptr, .begin = begin, .end = end, .recording = recording};
  }
  std::vector<float> numbers(const Tensor& tensor) { return on_host<float>(*context_, tensor); }
  Tensor branch(const Tensor& tensor, int index) const {
    return tensor.rows(index * batch_.tokens(), (index + 1) * batch_.tokens());
  }
  /// The last state of the target's run, as evaluation computes it.
  std::vector<float> plain_run() {
    const Segment whole{.splice = uniform_splice(3, {}), .begin = 0, .end = 3};
    const ResidualStates states =
        SegmentRunner(*context_, *pair_).run({&whole, 1}, batch_, {.keep = {{0, 3}}, .observe = {}});
    return numbers(states.at({0, 3}));
  }

  RealFileSystem files_;
  testing::TemporaryDirectory directory_;
  std::optional<Context> context_;
  std::optional<Decoder> pair_;
  std::optional<Workspace> workspace_;
  std::optional<Arena> arena_;
  std::int64_t layer_passes_ = 0;
  std::optional<PassMemory> memory_;
  TokenBatch batch_;
  BranchTokens tokens_;
  const std::vector<MlpSource> mlps_ = std::vector<MlpSource>(3, MlpSource::kTarget);
};

INSTANTIATE_TEST_SUITE_P(Device, RecordedSegmentTest, testing::kEachDevice, testing::device_name);

TEST_P(RecordedSegmentTest, StatesDoNotDependOnWhatIsRecorded) {
  const std::vector<float> expected = plain_run();
  for (const Recording recording : {Recording::kNothing, Recording::kAllButHidden, Recording::kAll}) {
    RecordedSegment segment(*context_, *memory_, plan(0, 3, recording), tokens_, 1);
    pair_->embed(*context_, tokens_.of(1), segment.input());
    std::vector<int> visited;
    segment.forward([&](int state, const Tensor&) { visited.push_back(state); });
    EXPECT_EQ(visited, (std::vector<int>{0, 1, 2, 3}));
    EXPECT_EQ(numbers(segment.output()), expected);
  }
  EXPECT_EQ(layer_passes_, 9);
}

TEST_P(RecordedSegmentTest, BranchesAreCutAnywhereAndRunSideBySide) {
  const std::vector<float> expected = plain_run();
  RecordedSegment first(*context_, *memory_, plan(0, 2, Recording::kAll), tokens_, 2);
  for (int index = 0; index < 2; ++index) pair_->embed(*context_, tokens_.of(1), branch(first.input(), index));
  first.forward({});
  RecordedSegment rest(*context_, *memory_, plan(2, 3, Recording::kAll), tokens_, 2);
  copy(*context_, first.output(), rest.input());
  rest.forward({});
  for (int index = 0; index < 2; ++index)
    EXPECT_TRUE(testing::agree(GetParam(), numbers(branch(rest.output(), index)), expected,
                               testing::pass_tolerance(GetParam(), DType::kFloat32, 3)));
}

/// Cotangents of the input for one of the output, over branches [0, wanted) of two.
TEST_P(RecordedSegmentTest, BackwardAgreesWithFiniteDifferences) {
  const std::int64_t elements = batch_.tokens() * 24;
  const std::vector<float> towards =
      on_host<float>(*context_, testing::random_tensor({elements}, 0.0f, 1.0f, 5, 1).tensor());
  const auto value = [&](const std::vector<float>& input) {
    RecordedSegment segment(*context_, *memory_, plan(1, 3, Recording::kNothing), tokens_, 1);
    copy(*context_, Tensor(const_cast<float*>(input.data()), DType::kFloat32, segment.input().shape()),
         segment.input());
    segment.forward({});
    const std::vector<float> output = numbers(segment.output());
    double sum = 0;
    for (std::size_t i = 0; i < output.size(); ++i) sum += static_cast<double>(output[i]) * towards[i];
    return sum;
  };
  for (const Recording recording : {Recording::kAllButHidden, Recording::kAll}) {
    RecordedSegment segment(*context_, *memory_, plan(1, 3, recording), tokens_, 1);
    pair_->embed(*context_, tokens_.of(1), segment.input());
    const std::vector<float> input = numbers(segment.input());
    segment.forward({});
    const Buffer memory(GetParam(), DType::kFloat32, segment.output().shape());
    const Tensor cotangent = memory.tensor();
    copy(*context_, Tensor(const_cast<float*>(towards.data()), DType::kFloat32, cotangent.shape()), cotangent);
    segment.backward({.branches = {0, 1}, .wanted = 1, .cotangent = cotangent, .on_state = {}});
    const std::vector<float> gradient = numbers(cotangent);
    for (std::size_t i = 3; i < input.size(); i += 61) {
      constexpr float kStep = 1e-2f;
      std::vector<float> above = input, below = input;
      above[i] += kStep;
      below[i] -= kStep;
      EXPECT_NEAR(gradient[i], (value(above) - value(below)) / (2.0 * kStep), 2e-2) << i;
    }
  }
}

TEST_P(RecordedSegmentTest, WhatWasNotRecordedHasNoBackward) {
  RecordedSegment segment(*context_, *memory_, plan(0, 1, Recording::kNothing), tokens_, 1);
  EXPECT_THROW(segment.backward({.branches = {0, 1}, .wanted = 1, .cotangent = segment.input(), .on_state = {}}),
               ShapeError);
}

TEST(Arena, IsAStackOfKnownSize) {
  Arena arena(Device::kCpu);
  arena.reserve(1024);
  const Tensor first = arena.take(DType::kFloat32, {3});
  const std::int64_t mark = arena.mark();
  const Tensor second = arena.take(DType::kFloat32, {64});
  EXPECT_EQ(static_cast<std::byte*>(second.data()) - static_cast<std::byte*>(first.data()), 256);
  EXPECT_THROW(arena.take(DType::kFloat32, {129}), ShapeError);
  EXPECT_THROW(arena.reserve(2048), ShapeError);
  arena.release(mark);
  EXPECT_EQ(arena.take(DType::kFloat32, {64}).data(), second.data());
  arena.release(0);
  arena.release(mark);  // earlier than what is in use: nothing happens
  EXPECT_EQ(arena.mark(), 0);
  EXPECT_EQ(Arena::bytes(DType::kFloat32, {65}), 512);
}

}  // namespace
}  // namespace tadapt

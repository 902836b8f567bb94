// The contract of sums of device values, under mpirun; every rank runs all checks, the first rank reports.
// `mpi_device_test [shared]`: with `shared` all ranks use one device.
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <optional>

#include "kernels/core/memory.h"
#include "kernels/pointwise.h"
#include "runtime/comm/device_group.h"
#include "runtime/comm/mpi_session.h"
#include "tests/comm/communicator_contract.h"
#include "tests/comm/mpi/report.h"

namespace tadapt {
namespace {

Communicator* world = nullptr;
MpiSession* session = nullptr;

/// Of testing::wild_floats.
constexpr float kMostMagnitude = 1 << 23;

bool has_gpu() {
  try {
    return device_count(Device::kCuda) > 0;
  } catch (const DeviceError&) {
    return false;  // no driver
  }
}

/// Whether two ranks of this host have one device.
bool shares_devices() {
  std::vector<std::string> devices = world->all_gather_text(device_address(Device::kCuda), "devices");
  std::sort(devices.begin(), devices.end());
  return std::adjacent_find(devices.begin(), devices.end()) != devices.end();
}

bool can_sum() { return std::has_single_bit(static_cast<unsigned>(world->size())); }

/// Numbers on the device, and back.
class DeviceNumbers {
 public:
  DeviceNumbers(Context& context, std::vector<float> values)
      : context_(context), buffer_(context.device(), DType::kFloat32, {static_cast<std::int64_t>(values.size())}) {
    copy(context, testing::view(values), buffer_.tensor());
    synchronize(context);
  }
  Tensor tensor() const { return buffer_.tensor(); }
  Tensor part(std::int64_t begin, std::int64_t end) const { return buffer_.tensor().rows(begin, end); }
  std::vector<float> get() const { return on_host<float>(context_, buffer_.tensor()); }

 private:
  Context& context_;
  Buffer buffer_;
};

/// Every case with both orders; where ranks share a device they are the same.
class DeviceSums : public ::testing::TestWithParam<SumOrder> {
 protected:
  void SetUp() override {
    if (!has_gpu()) GTEST_SKIP() << "no GPU here";
    context_.emplace(Context::cuda(session->local_rank() % device_count(Device::kCuda)));
    auto made = make_device_group(world->split(0, world->rank(), "device group"), *context_, GetParam(), 60);
    group_ = std::move(made.communicator);
    how_ = made.how;
    follows_the_tree_ = how_.find("fixed order") != std::string::npos;
  }
  Context& context() { return *context_; }

  std::optional<Context> context_;
  std::unique_ptr<Communicator> group_;
  std::string how_;
  bool follows_the_tree_ = false;
};
INSTANTIATE_TEST_SUITE_P(Orders, DeviceSums, ::testing::Values(SumOrder::kFast, SumOrder::kFixed),
                         [](const auto& order) { return order.param == SumOrder::kFast ? "Fast" : "Fixed"; });

TEST_P(DeviceSums, SaysHowItSums) {
  for (const auto& how : world->all_gather_text(how_, "how")) EXPECT_EQ(how, how_);
  std::string said = "by NCCL";
  if (world->size() == 1)
    said = "by one rank each";
  else if (shares_devices())
    said = "through host memory, in the fixed order (ranks 0 and ";
  EXPECT_THAT(how_, ::testing::HasSubstr(said));
}

TEST_P(DeviceSums, OtherCallsAreThoseOfTheGroup) {
  testing::check_gathers(*group_);
  testing::check_broadcasts(*group_);
  testing::check_messages(*group_);
  testing::check_split(*group_);
  if (!can_sum()) return;
  testing::check_tree_sum(*group_, {0, 1, 40'000});
  testing::check_scatter_and_gather(*group_, {0, 1, 40'000});
}

TEST_P(DeviceSums, RefusesOtherTypesAndOddGroups) {
  const Buffer doubles(Device::kCuda, DType::kFloat64, {4}), floats(Device::kCuda, DType::kFloat32, {4});
  EXPECT_THROW(group_->start_sum(doubles.tensor(), "doubles"), ShapeError);
  if (can_sum()) return;
  EXPECT_THROW(group_->start_sum(floats.tensor(), "three"), ConfigError);
}

TEST_P(DeviceSums, AreExactOnIntegers) {
  if (!can_sum()) return;
  std::vector<float> mine(50'000), expected(mine.size());
  const float ranks = static_cast<float>(world->size());
  for (std::size_t i = 0; i < mine.size(); ++i) {
    mine[i] = static_cast<float>(i % 1000) + static_cast<float>(world->rank());
    expected[i] = ranks * static_cast<float>(i % 1000) + ranks * (ranks - 1) / 2;
  }
  const DeviceNumbers values(context(), mine);
  group_->start_sum(values.tensor(), "exact")->wait();
  EXPECT_EQ(testing::differing_bits(values.get(), expected), 0u);
}

TEST_P(DeviceSums, InFixedOrderHaveTheBitsOfTheTree) {
  if (!can_sum()) return;
  for (const std::size_t count : {0, 1, 5, 4097, 16384, 16385, 20'481, 100'003, 2'100'001}) {
    std::vector<std::vector<float>> leaves;
    for (int rank = 0; rank < world->size(); ++rank) leaves.push_back(testing::wild_floats(rank, count));
    std::vector<float> tree(count), sequence = leaves[0];
    for (std::size_t i = 0; i < count; ++i) {
      tree[i] = testing::balanced_sum(leaves, i, 0, leaves.size());
      for (std::size_t rank = 1; rank < leaves.size(); ++rank) sequence[i] += leaves[rank][i];
    }
    const DeviceNumbers values(context(), leaves[static_cast<std::size_t>(world->rank())]);
    group_->start_sum(values.tensor(), "tree")->wait();
    const std::vector<float> sum = values.get();
    if (follows_the_tree_ || world->size() <= 2) {
      EXPECT_EQ(testing::differing_bits(sum, tree), 0u) << count << " elements";
    }
    for (std::size_t i = 0; i < count; ++i) {
      ASSERT_NEAR(sum[i], tree[i], kMostMagnitude * world->size() * 0x1p-22) << "element " << i << " of " << count;
    }
    // The order is the same on all ranks.
    const double digest = testing::differing_bits(sum, sequence);
    for (const double other : world->all_gather(std::span(&digest, 1), "digest")) EXPECT_EQ(other, digest);
  }
}

TEST_P(DeviceSums, ScatteredAndGatheredAreSums) {
  if (!can_sum()) return;
  for (const std::size_t count : {0, 1, 4097, 16384, 20'481, 100'003, 2'100'001}) {
    std::vector<std::vector<float>> leaves;
    for (int rank = 0; rank < world->size(); ++rank) leaves.push_back(testing::wild_floats(rank, count));
    std::vector<float> tree(count);
    for (std::size_t i = 0; i < count; ++i) tree[i] = testing::balanced_sum(leaves, i, 0, leaves.size());
    const DeviceNumbers values(context(), leaves[static_cast<std::size_t>(world->rank())]);
    group_->start_scatter_sum(values.tensor(), "scatter")->wait();
    // What is asked now sees the part, and is seen by the gather: nothing else of these numbers comes to others.
    const auto [begin, end] = group_->part(static_cast<std::int64_t>(count));
    std::vector<float> own(count, std::numeric_limits<float>::quiet_NaN());
    const std::vector<float> scattered = values.get();
    std::copy(scattered.begin() + begin, scattered.begin() + end, own.begin() + begin);
    copy(context(), testing::view(own), values.tensor());
    group_->start_gather(values.tensor(), "gather")->wait();
    const std::vector<float> sum = values.get();
    if (follows_the_tree_ || world->size() <= 2) {
      EXPECT_EQ(testing::differing_bits(sum, tree), 0u) << count << " elements";
    }
    for (std::size_t i = 0; i < count; ++i) {
      ASSERT_NEAR(sum[i], tree[i], kMostMagnitude * world->size() * 0x1p-22) << "element " << i << " of " << count;
    }
  }
}

TEST_P(DeviceSums, OfAnyShapeAreInPlace) {
  if (!can_sum()) return;
  const DeviceNumbers values(context(), std::vector<float>(6 * 7 + 5, 1.0f));
  group_->start_sum(values.part(0, 42).reshaped({6, 7}), "matrix")->wait();
  const auto sum = values.get();
  EXPECT_EQ(sum.front(), static_cast<float>(world->size()));
  EXPECT_EQ(sum[41], static_cast<float>(world->size()));
  for (std::size_t i = 42; i < sum.size(); ++i) EXPECT_EQ(sum[i], 1.0f) << "outside";
}

TEST_P(DeviceSums, SeveralUnderWayBesideOtherCalls) {
  if (!can_sum()) return;
  constexpr std::int64_t kCount = 300'000, kBucket = 70'001;
  const DeviceNumbers whole(context(), testing::wild_floats(world->rank(), kCount));
  const DeviceNumbers cut(context(), testing::wild_floats(world->rank(), kCount));
  group_->start_sum(whole.tensor(), "whole")->wait();
  for (int round = 0; round < 3; ++round) {
    const DeviceNumbers again(context(), testing::wild_floats(world->rank(), kCount));
    const DeviceNumbers& target = round == 0 ? cut : again;
    std::vector<std::unique_ptr<PendingExchange>> sums;
    for (std::int64_t begin = 0; begin < kCount; begin += kBucket) {
      sums.push_back(group_->start_sum(target.part(begin, std::min(begin + kBucket, kCount)), "bucket"));
      const double mine = world->rank();
      // Some ranks look, which lets their sums get on, others do not.
      if (world->rank() % 2 == 0) sums.front()->done();
      EXPECT_EQ(group_->all_gather(std::span(&mine, 1), "between").size(), static_cast<std::size_t>(world->size()));
    }
    if (round == 0) std::reverse(sums.begin(), sums.end());
    for (const auto& sum : sums) sum->wait();
    for (const auto& sum : sums) {
      EXPECT_TRUE(sum->done());
      sum->wait();
    }
    // In NCCL's own order an element's place in its buffer may decide how it is added.
    if (!follows_the_tree_ && world->size() > 2) continue;
    EXPECT_EQ(testing::differing_bits(target.get(), whole.get()), 0u);
  }
}

TEST_P(DeviceSums, StandBetweenWhatIsAskedBeforeAndAfter) {
  if (!can_sum()) return;
  const DeviceNumbers ones(context(), std::vector<float>(30'000, 1.0f)), values(context(), std::vector<float>(30'000));
  for (int step = 1; step <= 3; ++step) {
    add_to(context(), ones.tensor(), values.tensor());
    const auto sum = group_->start_sum(values.tensor(), "step");
    sum->wait();
    add_to(context(), ones.tensor(), values.tensor());
  }
  float expected = 0;
  for (int step = 1; step <= 3; ++step) expected = (expected + 1) * static_cast<float>(world->size()) + 1;
  for (const float value : values.get()) ASSERT_EQ(value, expected);
}

TEST(DeviceGroup, OnTheCpuIsTheGroupItself) {
  auto group = world->split(0, world->rank(), "on the cpu");
  const Communicator* same = group.get();
  Context context = Context::cpu(1);
  const DeviceGroup made = make_device_group(std::move(group), context, SumOrder::kFast, 60);
  EXPECT_EQ(made.communicator.get(), same);
}

}  // namespace
}  // namespace tadapt

int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  if (argc > 1 && std::strcmp(argv[1], "shared") == 0) setenv("TADAPT_DEVICE_SHARED", "1", 1);
  tadapt::MpiSession session;
  const auto world = tadapt::make_communicator(session, 60);
  tadapt::world = world.get();
  tadapt::session = &session;
  return tadapt::testing::run_all_tests(session);
}

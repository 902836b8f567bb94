// Leaves joined on one rank, and the same leaves joined on several.
#include "runtime/comm/reduction_tree.h"

#include <algorithm>
#include <numeric>

#include "kernels/optim.h"
#include "tests/comm/communicator_contract.h"
#include "tests/support/thread_communicator.h"

namespace tadapt {
namespace {
using testing::balanced_sum;
using testing::differing_bits;
using testing::wild_floats;

template <class T>
Tensor all_of(std::vector<T>& values) {
  return Tensor::of(std::span(values), {static_cast<std::int64_t>(values.size())});
}

std::vector<float> join(const std::vector<std::vector<float>>& leaves, std::size_t count, int threads) {
  Context context = Context::cpu(threads);
  std::vector<float> sum(count, -1.0f);
  LeafJoiner joiner;
  joiner.start({.destination = all_of(sum), .leaves = static_cast<std::int64_t>(leaves.size())});
  for (const auto& leaf : leaves) {
    std::ranges::copy(leaf, joiner.slot().span<float>().begin());
    joiner.push(context);
  }
  return sum;
}

std::vector<std::vector<float>> wild_leaves(int begin, int end, std::size_t count) {
  std::vector<std::vector<float>> leaves;
  for (int leaf = begin; leaf < end; ++leaf) leaves.push_back(wild_floats(leaf, count));
  return leaves;
}

TEST(LeafJoiner, IsTheBalancedTreeForAnyThreads) {
  constexpr std::size_t kCount = 150'001;
  for (const int leaf_count : {1, 2, 4, 8, 16}) {
    const auto leaves = wild_leaves(0, leaf_count, kCount);
    std::vector<float> expected(kCount);
    for (std::size_t i = 0; i < kCount; ++i) expected[i] = balanced_sum(leaves, i, 0, leaves.size());
    for (const int threads : {1, 2, 3}) EXPECT_EQ(differing_bits(join(leaves, kCount, threads), expected), 0u);
  }
}

TEST(LeafJoiner, JoinsOddCountsFromTheRight) {
  const auto leaves = wild_leaves(0, 7, 5);
  const auto sum = join(leaves, 5, 1);
  for (std::size_t i = 0; i < 5; ++i) {
    const auto leaf = [&](std::size_t index) { return leaves[index][i]; };
    const float first = (leaf(0) + leaf(1)) + (leaf(2) + leaf(3)), second = leaf(4) + leaf(5);
    EXPECT_EQ(sum[i], first + (second + leaf(6)));
  }
}

TEST(LeafJoiner, RefusesASumOfNothing) {
  std::vector<float> sum(4);
  EXPECT_THROW(LeafJoiner().start({.destination = all_of(sum), .leaves = 0}), ShapeError);
}

TEST(LeafJoiner, TakesTheResultsSquareSumsOnTheWay) {
  constexpr std::size_t kCount = 3 * 4096 + 11, kBlocks = 2;  // the rest is not asked for
  for (const int leaf_count : {1, 2, 3, 7, 8}) {
    const auto leaves = wild_leaves(0, leaf_count, kCount);
    Context context = Context::cpu(2);
    std::vector<float> sum(kCount);
    std::vector<double> squares(kBlocks, -1.0), expected(kBlocks);
    LeafJoiner joiner;
    joiner.start({.destination = all_of(sum), .leaves = leaf_count, .square_sums = all_of(squares)});
    for (const auto& leaf : leaves) {
      std::ranges::copy(leaf, joiner.slot().span<float>().begin());
      joiner.push(context);
    }
    EXPECT_EQ(differing_bits(sum, join(leaves, kCount, 1)), 0u);
    block_square_sums(context, all_of(sum).rows(0, kBlocks * 4096), all_of(expected));
    EXPECT_EQ(squares, expected) << leaf_count << " leaves";
  }
}

TEST(LeafJoiner, KeepsLogarithmicallyManyBuffersAndReusesThem) {
  Context context = Context::cpu(1);
  LeafJoiner joiner;
  std::vector<float> sum(1000);
  for (int repeat = 0; repeat < 3; ++repeat) {
    joiner.start({.destination = all_of(sum), .leaves = 8});
    for (int leaf = 0; leaf < 8; ++leaf) {
      std::ranges::fill(joiner.slot().span<float>(), static_cast<float>(leaf));
      joiner.push(context);
    }
    EXPECT_EQ(sum, std::vector<float>(1000, 28.0f));
    EXPECT_EQ(joiner.scratch_bytes(), 3 * 1000 * 4);
    EXPECT_EQ(leaf_joiner_bytes(1000, 8), 3 * 1000 * 4);
  }
  EXPECT_EQ(leaf_joiner_bytes(1000, 1), 0);
}

TEST(JoinLeaves, IsTheSameTreeInDouble) {
  const std::vector<double> values = {1e16, 1.0, -1e16, 3.0, 0.1, 0.2, 0.3};
  const double first = (values[0] + values[1]) + (values[2] + values[3]);
  EXPECT_EQ(join_leaves(values), first + ((values[4] + values[5]) + values[6]));
  EXPECT_EQ(join_leaves(std::span(values).first(4)), first);
  EXPECT_EQ(join_leaves({}), 0.0);
}

TEST(ReductionTree, LocalLeavesThenRanksGiveTheSameBitsForAnyGroup) {
  constexpr int kLeaves = 8;
  constexpr std::size_t kCount = 40'000;
  const auto leaves = wild_leaves(0, kLeaves, kCount);
  std::vector<float> expected(kCount);
  for (std::size_t i = 0; i < kCount; ++i) expected[i] = balanced_sum(leaves, i, 0, kLeaves);
  for (const int ranks : {1, 2, 4, 8}) {
    testing::run_ranks(ranks, [&](Communicator& comm) {
      const int share = kLeaves / ranks;
      auto sum = join(wild_leaves(comm.rank() * share, (comm.rank() + 1) * share, kCount), kCount, 1);
      comm.start_sum(testing::view(sum), "leaves")->wait();
      EXPECT_EQ(differing_bits(sum, expected), 0u) << ranks << " ranks";
    });
  }
}

}  // namespace
}  // namespace tadapt

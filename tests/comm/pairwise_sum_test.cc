// Sums over ranks: the tree bit by bit, how many bytes travel, and that they get on while their owner computes.
#include <chrono>
#include <thread>

#include "runtime/comm/reduction_tree.h"
#include "tests/comm/communicator_contract.h"
#include "tests/support/thread_communicator.h"

namespace tadapt {
namespace {
using testing::run_ranks;

class PairwiseSum : public ::testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Ranks, PairwiseSum, ::testing::Values(1, 2, 4, 8, 16));

TEST_P(PairwiseSum, IsExactOnIntegers) { run_ranks(GetParam(), testing::check_exact_sum); }
TEST_P(PairwiseSum, DoesNotDependOnBuckets) { run_ranks(GetParam(), testing::check_overlapping_sums); }
TEST_P(PairwiseSum, IsTheBalancedTree) {
  const std::vector<std::size_t> sizes = {0,     1,     4095,  4096,  4097,    8193,   16384,
                                          16385, 20480, 32769, 40000, 100'003, 262'144};
  run_ranks(GetParam(), [&](Communicator& comm) { testing::check_tree_sum(comm, sizes); });
}

TEST_P(PairwiseSum, IsTheSameTreeScatteredAndGathered) {
  run_ranks(GetParam(), [](Communicator& comm) {
    testing::check_scatter_and_gather(comm, {0, 1, 4095, 4097, 16384, 32769, 65'535, 100'003, 262'144});
  });
}

TEST(PairwiseSum, CrossesTheBordersOfPiecesOfParts) {
  run_ranks(4, [](Communicator& comm) {
    constexpr std::size_t kSlices = 2 * kPieceElements;
    testing::check_scatter_and_gather(comm, {kSlices - 1, kSlices, kSlices + 1, kSlices + 12'289});
  });
}

TEST(Parts, AreContiguousOnBlockBordersAndNearlyEqual) {
  for (const int ranks : {1, 2, 4, 8, 64}) {
    for (const std::int64_t elements : {0, 1, 4096, 4097, 40'000, 1 << 20, 1'234'567}) {
      std::int64_t end = 0;
      for (const ElementRange& part : parts_of(elements, ranks)) {
        EXPECT_EQ(part.begin, end);
        EXPECT_EQ(part.begin % kReductionBlock, 0);
        EXPECT_LE(std::abs(part.size() - elements / ranks), ranks * kReductionBlock);
        end = part.end;
      }
      EXPECT_EQ(end, elements);
    }
  }
  EXPECT_EQ(part_of(3 * kReductionBlock + 5, 1, 2), (ElementRange{kReductionBlock, 3 * kReductionBlock + 5}));
  EXPECT_EQ(part_of(kReductionBlock, 0, 2), (ElementRange{0, 0}));
  EXPECT_THROW(part_of(5, 2, 2), ShapeError);
}

TEST(PairwiseSum, CrossesTheBordersOfPieces) {
  run_ranks(2, [](Communicator& comm) {
    testing::check_tree_sum(comm, {kPieceElements - 1, kPieceElements, kPieceElements + 1, 6 * kPieceElements + 4097});
  });
}

TEST(PairwiseSum, RefusesGroupsThatAreNoPowerOfTwo) {
  run_ranks(3, [](Communicator& comm) {
    std::vector<float> values(8);
    EXPECT_THROW(comm.start_sum(testing::view(values), "three"), ConfigError);
    EXPECT_THROW(comm.start_gather(testing::view(values), "three"), ConfigError);
  });
}

TEST(PairwiseSum, RefusesOtherTypes) {
  std::vector<double> values(8);
  const auto doubles = Tensor::of(std::span(values), {8});
  SelfCommunicator self;
  EXPECT_THROW(self.start_sum(doubles, "doubles"), ShapeError);
  run_ranks(2, [&](Communicator& comm) { EXPECT_THROW(comm.start_sum(doubles, "doubles"), ShapeError); });
}

TEST(PairwiseSum, FinishesWithoutBeingWaitedFor) {
  run_ranks(4, [](Communicator& comm) {
    std::vector<float> values(3'000'000, 1.0f);
    const auto sum = comm.start_sum(testing::view(values), "in the background");
    for (int i = 0; i < 2000 && !sum->done(); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(5));
    EXPECT_TRUE(sum->done());
    EXPECT_EQ(values.front(), 4.0f);
    EXPECT_EQ(values.back(), 4.0f);
  });
}

/// Counts what one rank sends.
class CountingTransport : public testing::ThreadTransport {
 public:
  CountingTransport(testing::ThreadWorld& world, int rank, std::vector<std::size_t>& sent)
      : ThreadTransport(world, rank), sent_(sent[static_cast<std::size_t>(rank)]) {}
  std::unique_ptr<Transfer> send(int peer, int tag, std::span<const std::byte> bytes) override {
    sent_ += bytes.size();
    return ThreadTransport::send(peer, tag, bytes);
  }

 private:
  std::size_t& sent_;
};

constexpr int kRanks = 8;
constexpr std::size_t kElements = 64 * kReductionBlock;

/// Bytes that each rank sends for one collective.
std::vector<std::size_t> bytes_sent(Collective collective) {
  testing::ThreadWorld world(kRanks);
  std::vector<std::size_t> sent(kRanks);
  {
    std::vector<std::jthread> threads;
    for (int rank = 0; rank < kRanks; ++rank) {
      threads.emplace_back([&, rank] {
        ProgressEngine engine(std::make_unique<CountingTransport>(world, rank, sent));
        ExchangeCommunicator comm(engine);
        std::vector<float> values(kElements, 1.0f);
        comm.start(collective, testing::view(values), "counted")->wait();
      });
    }
  }
  return sent;
}

TEST(PairwiseSum, SendsTwiceTheBytesLessOneShareAndScattersHalfOfThat) {
  constexpr std::size_t kOnce = (kElements - kElements / kRanks) * sizeof(float);
  for (const std::size_t bytes : bytes_sent(Collective::kSum)) EXPECT_EQ(bytes, 2 * kOnce);
  for (const std::size_t bytes : bytes_sent(Collective::kScatterSum)) EXPECT_EQ(bytes, kOnce);
  for (const std::size_t bytes : bytes_sent(Collective::kGather)) EXPECT_EQ(bytes, kOnce);
}

}  // namespace
}  // namespace tadapt

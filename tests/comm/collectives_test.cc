// The communicator's contract with ranks as threads, and how it fails.
#include <atomic>
#include <chrono>
#include <thread>

#include "tests/comm/communicator_contract.h"
#include "tests/support/thread_communicator.h"

namespace tadapt {
namespace {
using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::run_ranks;

class Ranks : public ::testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(, Ranks, ::testing::Values(1, 2, 3, 4, 5, 7, 8, 9));

TEST_P(Ranks, Gather) { run_ranks(GetParam(), testing::check_gathers); }
TEST_P(Ranks, AllToAll) { run_ranks(GetParam(), testing::check_all_to_all); }
TEST_P(Ranks, Broadcast) { run_ranks(GetParam(), testing::check_broadcasts); }
TEST_P(Ranks, Messages) { run_ranks(GetParam(), testing::check_messages); }
TEST_P(Ranks, Split) { run_ranks(GetParam(), testing::check_split); }

TEST_P(Ranks, NobodyLeavesABarrierBeforeAllCame) {
  std::atomic<int> came = 0;
  run_ranks(GetParam(), [&](Communicator& comm) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5 * comm.rank()));
    ++came;
    comm.barrier("all here");
    EXPECT_EQ(came, comm.size());
  });
}

TEST(SelfCommunicator, IsAGroupOfOne) {
  SelfCommunicator comm;
  testing::check_gathers(comm);
  testing::check_all_to_all(comm);
  testing::check_broadcasts(comm);
  testing::check_split(comm);
  testing::check_exact_sum(comm);
  testing::check_scatter_and_gather(comm, {0, 5, 10'000});
  std::vector<float> value(1);
  EXPECT_THROW(comm.send(testing::view(value), 0, "to itself"), ShapeError);
  EXPECT_THROW(comm.receive(testing::view(value), 0, "from itself"), ShapeError);
  comm.barrier("alone");
}

template <class Body>
std::string failure_of(int ranks, double timeout_seconds, const Body& body) {
  try {
    run_ranks(ranks, body, timeout_seconds);
  } catch (const std::exception& error) {
    return error.what();
  }
  return "no failure";
}

TEST(CommunicatorFailures, AMissingRankIsNamedWithTheOperation) {
  const auto what = failure_of(2, 0.2, [](Communicator& comm) {
    if (comm.rank() == 0) comm.barrier("checkpoint 7");
    if (comm.rank() == 1) std::this_thread::sleep_for(std::chrono::milliseconds(600));
  });
  EXPECT_THAT(what, AllOf(HasSubstr("rank 0 of 2"), HasSubstr("for rank 1"), HasSubstr("'checkpoint 7'")));
}

TEST(CommunicatorFailures, AMissingRankOfASumIsNamed) {
  EXPECT_THROW(run_ranks(
                   4,
                   [](Communicator& comm) {
                     std::vector<float> values(100'000);
                     if (comm.rank() != 2) {
                       comm.start_sum(testing::view(values), "layer 3")->wait();
                     } else {
                       std::this_thread::sleep_for(std::chrono::milliseconds(600));
                     }
                   },
                   0.2),
               WatchdogError);
  const auto what = failure_of(2, 0.2, [](Communicator& comm) {
    std::vector<float> values(100'000);
    if (comm.rank() == 1) comm.start_sum(testing::view(values), "layer 3")->wait();
    if (comm.rank() == 0) std::this_thread::sleep_for(std::chrono::milliseconds(600));
  });
  EXPECT_THAT(what, AllOf(HasSubstr("rank 1 of 2"), HasSubstr("for rank 0"), HasSubstr("'layer 3'")));
}

TEST(CommunicatorFailures, UnequalCountsAreAnErrorNotGarbage) {
  const auto what = failure_of(3, 5, [](Communicator& comm) {
    const std::vector<double> mine(comm.rank() == 2 ? 4 : 3);
    comm.all_gather(mine, "losses");
    comm.barrier("end");
  });
  EXPECT_THAT(what, AllOf(HasSubstr("'losses'"), HasSubstr("bytes instead of")));
}

TEST(CommunicatorFailures, AThrowingRankReleasesTheOthers) {
  const auto start = std::chrono::steady_clock::now();
  const auto what = failure_of(4, 60, [](Communicator& comm) {
    if (comm.rank() == 3) throw DataError("shard 9 is broken");
    std::vector<float> values(100'000);
    const auto sum = comm.start_sum(testing::view(values), "never finished");
    comm.barrier("never reached");
  });
  EXPECT_THAT(what, HasSubstr("shard 9 is broken"));
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(10));
}

}  // namespace
}  // namespace tadapt

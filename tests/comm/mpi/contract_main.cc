// The communicator's contract under mpirun; every rank runs all checks, the first rank reports.
#include "runtime/comm/exchange_communicator.h"
#include "runtime/comm/mpi_session.h"
#include "runtime/comm/mpi_transport.h"
#include "runtime/comm/sum_queue.h"
#include "tests/comm/communicator_contract.h"
#include "tests/comm/mpi/report.h"

namespace tadapt {
namespace {

Communicator* world = nullptr;
MpiSession* session = nullptr;

bool can_sum() { return std::has_single_bit(static_cast<unsigned>(world->size())); }

TEST(Mpi, Gather) { testing::check_gathers(*world); }
TEST(Mpi, AllToAll) { testing::check_all_to_all(*world); }
TEST(Mpi, Broadcast) { testing::check_broadcasts(*world); }
TEST(Mpi, Messages) { testing::check_messages(*world); }
TEST(Mpi, Split) { testing::check_split(*world); }

TEST(Mpi, SessionFacts) {
  EXPECT_EQ(session->rank(), world->rank());
  EXPECT_EQ(session->size(), world->size());
  // mpirun put all ranks on this host.
  EXPECT_EQ(session->local_rank(), world->rank());
  EXPECT_EQ(session->local_size(), world->size());
  for (const auto& host : world->all_gather_text(session->hostname(), "hosts")) EXPECT_EQ(host, session->hostname());
}

TEST(Mpi, SumsAreTheBalancedTree) {
  if (!can_sum()) {
    std::vector<float> values(4);
    EXPECT_THROW(world->start_sum(testing::view(values), "not a power of two"), ConfigError);
    return;
  }
  testing::check_exact_sum(*world);
  testing::check_tree_sum(*world, {0, 1, 4097, 16384, 16385, 100'003, 2 * kPieceElements + 1});
  testing::check_scatter_and_gather(*world, {0, 1, 4097, 16385, 100'003, 2 * kPieceElements + 12'289});
  testing::check_overlapping_sums(*world);
}

TEST(Mpi, SumsInGroupsBesideEachOther) {
  if (!can_sum() || world->size() < 4) return;
  const auto group = world->split(world->rank() / 2, 0, "pairs");
  testing::check_tree_sum(*group, {70'000});
  testing::check_overlapping_sums(*group);
  world->barrier("groups done");
}

TEST(Mpi, LongMessagesTravelInPieces) {
  ProgressEngine engine(std::make_unique<MpiTransport>(MPI_COMM_WORLD, 1000));  // beside the session's, which is idle
  engine.raise_next_id(60);
  ExchangeCommunicator comm(engine);
  testing::check_gathers(comm);
  testing::check_broadcasts(comm);
  if (!can_sum()) return;
  testing::check_tree_sum(comm, {40'000});
  testing::check_scatter_and_gather(comm, {40'000});
}

TEST(Mpi, ManySmallOperationsDoNotRunOutOfTags) {
  const double mine = world->rank();
  for (int i = 0; i < 70'000 / world->size(); ++i) {
    ASSERT_EQ(world->all_gather(std::span(&mine, 1), "again")[0], 0.0);
  }
}

}  // namespace
}  // namespace tadapt

int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  tadapt::MpiSession session;
  const auto world = tadapt::make_communicator(session, 60);
  tadapt::world = world.get();
  tadapt::session = &session;
  return tadapt::testing::run_all_tests(session);
}

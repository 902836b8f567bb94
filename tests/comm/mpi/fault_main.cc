// A job in which one rank does something bad: `mpi_fault_program HOW TIMEOUT_SECONDS`.
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <string>
#include <thread>
#include <vector>

#include "kernels/core/error.h"
#include "runtime/comm/mpi_session.h"
#include "runtime/comm/peer_failure.h"
#include "runtime/comm/stop_signals.h"

namespace tadapt {
namespace {

void misbehave(const std::string& how) {
  if (how == "throw") throw DataError("shard-000007.h5: chunk 3 is broken");
  if (how == "foreign") throw std::out_of_range("a bug");
  if (how == "kill") raise(SIGKILL);
  if (how == "segfault") raise(SIGSEGV);
  if (how == "stop") raise(SIGSTOP);
  if (how == "leave") _exit(0);
  if (how == "sleep") std::this_thread::sleep_for(std::chrono::hours(1));
}

int run(MpiSession& session, const std::string& how, double timeout_seconds) {
  const StopSignals signals;
  const auto world = make_communicator(session, timeout_seconds);
  fmt::print("pid {} of rank {}\n", getpid(), world->rank());
  std::fflush(stdout);
  world->barrier("start");
  if (how == "refuse") throw ConfigError("tadapt.yaml:3: unknown key 'lamda'");
  if (how == "agree" && world->rank() == 2) throw DataError("model.safetensors: truncated");
  if (how == "agree") throw PeerFailure(ExitCode::kBadData, "model.safetensors: truncated");
  const auto group = world->split(world->rank() / 2, 0, "pairs");
  std::vector<float> values(std::size_t{1} << 20, 1.0f);
  for (int step = 0; how == "forever" || step < 1000; ++step) {
    const auto sum =
        group->start_sum(Tensor::of(std::span(values), {1 << 20}), fmt::format("gradients of step {}", step));
    if (step == 5 && world->rank() == 1) misbehave(how);
    sum->wait();
    const double stop = signals.requested() ? 1 : 0;
    const auto stops = world->all_gather(std::span(&stop, 1), fmt::format("scalars of step {}", step));
    if (std::count(stops.begin(), stops.end(), 1.0) > 0) return static_cast<int>(ExitCode::kRequeue);
    if (step == 5 && how == "none") return 0;
  }
  return 0;
}

/// As a main that forgot to catch within the session's life.
int let_an_exception_escape() try {
  MpiSession session;
  const auto world = make_communicator(session, 60);
  if (world->rank() == 1) throw std::runtime_error("unexpected");
  world->barrier("never complete");
  return 0;
} catch (const std::exception&) {
  return 99;
}

}  // namespace
}  // namespace tadapt

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  if (std::string(argv[1]) == "escape") return tadapt::let_an_exception_escape();
  try {
    tadapt::MpiSession session;
    try {
      return tadapt::run(session, argv[1], std::atof(argv[2]));
    } catch (const std::exception& error) {
      return session.fail(error);
    }
  } catch (const tadapt::Error& error) {  // MPI did not start
    fmt::print(stderr, "tadapt: {}\n", error.what());
    return static_cast<int>(error.code());
  }
}

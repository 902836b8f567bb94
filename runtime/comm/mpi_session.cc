// Starting MPI, ending it, and ending the job when something failed.
#include "runtime/comm/mpi_session.h"

#include <mpi.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <thread>

#include "kernels/core/error.h"
#include "runtime/comm/exchange_communicator.h"
#include "runtime/comm/mpi_transport.h"
#include "runtime/comm/peer_failure.h"
#include "runtime/comm/progress_engine.h"
#include "runtime/comm/watchdog.h"

namespace tadapt {
namespace {
constexpr double kEndSeconds = 60;
// An error that all ranks have in common should be said once: the others wait for the first rank to end them.
constexpr std::chrono::milliseconds kFirstRankSpeaks{2000};
// How long a rank that gave up on a peer waits for others to say theirs before it ends them all.
constexpr std::chrono::seconds kLastWords{4};

/// Set by mpirun (OMPI_…), by PMIx and PMI launchers such as srun and mpiexec.hydra.
bool started_by_a_launcher() {
  for (const char* variable : {"OMPI_COMM_WORLD_SIZE", "PMIX_RANK", "PMI_RANK", "PMI_SIZE"}) {
    if (std::getenv(variable) != nullptr) return true;
  }
  return false;
}

/// Processes srun started in this step, of which each must be a rank; 0 when srun did not start this process.
int srun_tasks() {
  const char* tasks = std::getenv("SLURM_STEP_NUM_TASKS");
  return tasks == nullptr || std::getenv("OMPI_COMM_WORLD_SIZE") != nullptr ? 0 : std::atoi(tasks);
}

[[noreturn]] void refuse_singletons(int tasks) {
  const auto message = fmt::format(
      "srun started {} processes that MPI does not connect; start them with srun --mpi=pmix, or mpirun", tasks);
  const char* place = std::getenv("SLURM_PROCID");
  if (place == nullptr || std::atoi(place) == 0) throw ConfigError("{}", message);
  std::this_thread::sleep_for(kFirstRankSpeaks);
  throw PeerFailure(ExitCode::kBadConfig, message);
}

}  // namespace

std::string host_name() {
  std::array<char, 256> name{};
  return gethostname(name.data(), name.size() - 1) == 0 ? name.data() : "unknown-host";
}

class MpiSession::State {
 public:
  State() {
    const int tasks = srun_tasks();
    if (started_by_a_launcher()) start();
    if (tasks > 1 && size == 1) refuse_singletons(tasks);
  }
  ~State() {
    engine.reset();
    if (!uses_mpi) return;
    Watchdog watchdog(who(), kEndSeconds);
    watchdog.beat("ending MPI");
    MPI_Finalize();
  }
  std::string who() const { return fmt::format("rank {}/{} {}", rank, size, hostname); }

  std::string hostname = host_name();
  int rank = 0, size = 1, local_rank = 0, local_size = 1;
  bool uses_mpi = false;
  int exceptions_at_start = std::uncaught_exceptions();
  std::unique_ptr<ProgressEngine> engine;

 private:
  void start() {
    int provided = MPI_THREAD_SINGLE;
    check_mpi(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_SERIALIZED, &provided), "MPI_Init_thread");
    uses_mpi = true;
    if (provided < MPI_THREAD_SERIALIZED) throw CommError("this MPI lets only one thread call it (level {})", provided);
    auto transport = std::make_unique<MpiTransport>(MPI_COMM_WORLD);
    rank = transport->rank();
    size = transport->size();
    engine = std::make_unique<ProgressEngine>(std::move(transport));
    MPI_Comm host = MPI_COMM_NULL;
    check_mpi(MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, rank, MPI_INFO_NULL, &host),
              "MPI_Comm_split_type");
    check_mpi(MPI_Comm_rank(host, &local_rank), "MPI_Comm_rank");
    check_mpi(MPI_Comm_size(host, &local_size), "MPI_Comm_size");
    check_mpi(MPI_Comm_free(&host), "MPI_Comm_free");
  }
};

MpiSession::MpiSession() : state_(std::make_unique<State>()) {}

MpiSession::~MpiSession() {
  if (state_->size == 1) return;
  if (std::uncaught_exceptions() > state_->exceptions_at_start) {
    fail(Error(ExitCode::kInternal, "an exception left the program"));
  }
  try {
    state_->engine->set_timeout(kEndSeconds);
    ExchangeCommunicator(*state_->engine).barrier("end of the job");
  } catch (const std::exception& error) {
    fail(error);
  }
}

int MpiSession::rank() const { return state_->rank; }
int MpiSession::size() const { return state_->size; }
int MpiSession::local_rank() const { return state_->local_rank; }
int MpiSession::local_size() const { return state_->local_size; }
const std::string& MpiSession::hostname() const { return state_->hostname; }
std::string MpiSession::who() const { return state_->who(); }

int MpiSession::fail(const std::exception& error) noexcept {
  const auto* ours = dynamic_cast<const Error*>(&error);
  const ExitCode code = ours == nullptr ? ExitCode::kInternal : ours->code();
  std::signal(SIGTERM, SIG_DFL);  // nothing will be saved any more: the launcher's end shall be the end
  if (state_->rank != 0) std::this_thread::sleep_for(kFirstRankSpeaks);
  const bool said_by_peer = dynamic_cast<const PeerFailure*>(&error) != nullptr;
  if (!said_by_peer) fmt::print(stderr, "tadapt: {}: {}\n", who(), error.what());
  std::fflush(nullptr);
  if (state_->size == 1) return static_cast<int>(code);
  if (said_by_peer || code == ExitCode::kWatchdog || code == ExitCode::kPeerFailed) {
    std::this_thread::sleep_for(kLastWords);
  }
  MPI_Abort(MPI_COMM_WORLD, static_cast<int>(code));
  std::_Exit(static_cast<int>(code));
}

std::unique_ptr<Communicator> make_communicator(MpiSession& session, double timeout_seconds) {
  if (session.size() == 1) return std::make_unique<SelfCommunicator>();
  session.state_->engine->set_timeout(timeout_seconds);
  return std::make_unique<ExchangeCommunicator>(*session.state_->engine);
}

}  // namespace tadapt

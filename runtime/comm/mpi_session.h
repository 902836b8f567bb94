// MpiSession: MPI from start to end of a process; the one way to get the communicator of all ranks.
#pragma once

#include <exception>
#include <memory>
#include <string>

#include "runtime/comm/communicator.h"

namespace tadapt {

/// Of the machine this process runs on.
std::string host_name();

/// Starts MPI when a launcher (mpirun, srun) started this process, and is a single process otherwise. In main it is
/// made first, but for the signals, and destroyed last. Destroyed normally it waits (bounded) for the other ranks and
/// ends MPI; destroyed while an exception passes it ends the whole job with exit code 70.
class MpiSession {
 public:
  /// When srun started several processes that MPI does not bring together: a ConfigError in the first, a PeerFailure
  /// in the others.
  MpiSession();
  ~MpiSession();
  MpiSession(const MpiSession&) = delete;
  MpiSession& operator=(const MpiSession&) = delete;

  int rank() const;
  int size() const;
  int local_rank() const;  ///< among the ranks on this host
  int local_size() const;  ///< ranks on this host
  const std::string& hostname() const;
  std::string who() const;  ///< "rank 3/8 host"

  /// Says `tadapt: rank 3/8 host: <message>` on stderr. With peers, then ends the whole job with the error's exit code
  /// (70 for foreign exceptions) and does not return; alone, returns that code for main to return. An error that all
  /// ranks have in common is said by the first rank only, a PeerFailure only by the peer.
  int fail(const std::exception& error) noexcept;

 private:
  friend std::unique_ptr<Communicator> make_communicator(MpiSession& session, double timeout_seconds);
  class State;
  std::unique_ptr<State> state_;
};

/// The communicator of all ranks; every wait is bounded by the timeout. The session must outlive it and its splits.
std::unique_ptr<Communicator> make_communicator(MpiSession& session, double timeout_seconds);

}  // namespace tadapt

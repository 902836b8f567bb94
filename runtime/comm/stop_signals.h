// StopSignals: SIGTERM, SIGUSR1 and SIGUSR2 as a flag that every phase of a run looks at.
#pragma once

#include <csignal>
#include <string>

namespace tadapt {

/// Catches the three signals while it lives and restores the former handlers when destroyed; main owns the only one.
/// The first signal sets a flag; a second one ends the process at once with exit code 128 + its number. The same signal
/// again within kEchoMs is no second one: a container's or an MPI's launcher passes on what Slurm sends to all
/// processes.
class StopSignals {
 public:
  static constexpr int kEchoMs = 1000;

  StopSignals();
  ~StopSignals();
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;

  bool requested() const { return signal() != 0; }
  int signal() const;        ///< number of the first signal that came, 0 for none
  std::string name() const;  ///< "SIGTERM", …; "none"

  /// From now on, and for good, the three mean nothing: the work is done or saved, and a launcher that ends all ranks
  /// because the first has left (srun --kill-on-bad-exit, mpirun) shall not change the exit code of the others.
  void ignore();

 private:
  struct sigaction former_[3];
};

}  // namespace tadapt

// Running another program from a test: its exit code, what it said, how long it took; and whether processes still live.
#pragma once

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <stdexcept>
#include <string>
#include <vector>

extern char** environ;

namespace tadapt::testing {

struct ChildResult {
  int exit_code = -1;  ///< 128 + n when killed by signal n
  std::string output;  ///< stdout and stderr as they came
  double seconds = 0;
  bool timed_out = false;
};

/// The environment of programs that use MPI: as root, with more ranks than cores, and without a search for leaks, since
/// OpenMPI unloads its plug-ins before it is over and nobody can tell then whose the leaks are.
inline void prepare_for_mpi() {
  setenv("OMPI_ALLOW_RUN_AS_ROOT", "1", 1);
  setenv("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1", 1);
  setenv("OMPI_MCA_rmaps_base_oversubscribe", "1", 1);
  setenv("ASAN_OPTIONS", "detect_leaks=0", 1);
}

/// A started program, its own process group. Killed (group and all) when destroyed while it runs.
class ChildProcess {
 public:
  explicit ChildProcess(std::vector<std::string> command) : start_(Clock::now()) {
    prepare_for_mpi();
    std::array<int, 2> ends{};
    if (pipe2(ends.data(), O_CLOEXEC) != 0) throw std::runtime_error("pipe2");
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
    posix_spawn_file_actions_adddup2(&actions, ends[1], STDERR_FILENO);
    posix_spawnattr_t attributes;
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP);
    std::vector<char*> argv;
    for (auto& word : command) argv.push_back(word.data());
    argv.push_back(nullptr);
    const int status = posix_spawnp(&pid_, argv[0], &actions, &attributes, argv.data(), environ);
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
    close(ends[1]);
    output_end_ = ends[0];
    if (status != 0) throw std::runtime_error("cannot start " + command[0]);
  }
  ~ChildProcess() {
    if (pid_ > 0) {
      kill(-pid_, SIGKILL);
      waitpid(pid_, nullptr, 0);
    }
    close(output_end_);
  }
  ChildProcess(const ChildProcess&) = delete;
  ChildProcess& operator=(const ChildProcess&) = delete;

  pid_t pid() const { return pid_; }
  const std::string& output() const { return result_.output; }

  /// Reads what the program says until `enough(output)` or it ends or the time is over; whether it was enough.
  bool read_until(const std::function<bool(const std::string&)>& enough, double timeout_seconds) {
    const auto deadline = Clock::now() + std::chrono::duration<double>(timeout_seconds);
    while (!enough(result_.output)) {
      if (Clock::now() > deadline) return false;
      struct pollfd ready = {output_end_, POLLIN, 0};
      if (poll(&ready, 1, 50) == 0) continue;
      std::array<char, 4096> part{};
      const ssize_t bytes = read(output_end_, part.data(), part.size());
      if (bytes <= 0) return enough(result_.output);
      result_.output.append(part.data(), static_cast<std::size_t>(bytes));
    }
    return true;
  }

  /// Waits for its end (and that of its output); kills it when the time is over.
  ChildResult wait(double timeout_seconds) {
    const auto deadline = Clock::now() + std::chrono::duration<double>(timeout_seconds);
    int status = 0;
    for (;;) {
      read_until([](const std::string&) { return false; }, 0.05);
      if (waitpid(pid_, &status, WNOHANG) == pid_) break;
      if (Clock::now() > deadline) {
        result_.timed_out = true;
        kill(-pid_, SIGKILL);
        waitpid(pid_, &status, 0);
        break;
      }
    }
    pid_ = -1;
    result_.seconds = std::chrono::duration<double>(Clock::now() - start_).count();
    read_until([](const std::string&) { return false; }, 0.2);
    result_.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    return result_;
  }

 private:
  using Clock = std::chrono::steady_clock;
  pid_t pid_ = -1;
  int output_end_ = -1;
  Clock::time_point start_;
  ChildResult result_;
};

/// `mpirun -n ranks command…`
inline std::vector<std::string> mpirun(int ranks, const std::vector<std::string>& command) {
  std::vector<std::string> all = {"mpirun", "-n", std::to_string(ranks)};
  all.insert(all.end(), command.begin(), command.end());
  return all;
}

inline ChildResult run_program(std::vector<std::string> command, double timeout_seconds) {
  return ChildProcess(std::move(command)).wait(timeout_seconds);
}

/// Whether a process exists that is more than an unburied zombie.
inline bool is_running(pid_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/stat");
  std::string stat;
  std::getline(file, stat);
  const auto after_name = stat.rfind(')');
  return after_name != std::string::npos && after_name + 2 < stat.size() && stat[after_name + 2] != 'Z';
}

}  // namespace tadapt::testing

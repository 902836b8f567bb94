// The handler and the one flag a handler can set.
#include "runtime/comm/stop_signals.h"

#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <ctime>

#include "kernels/core/error.h"

namespace tadapt {
namespace {
constexpr int kSignals[] = {SIGTERM, SIGUSR1, SIGUSR2};

// A signal handler can reach nothing but objects of static storage: the only globals of the program.
volatile std::sig_atomic_t first_signal = 0;
std::atomic<std::int64_t> first_ms = 0;
static_assert(std::atomic<std::int64_t>::is_always_lock_free);

std::int64_t now_ms() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return std::int64_t{now.tv_sec} * 1000 + now.tv_nsec / 1'000'000;
}

extern "C" void note_signal(int number) {
  if (first_signal == 0) {
    first_ms = now_ms();
    first_signal = number;
  } else if (number != first_signal || now_ms() - first_ms >= StopSignals::kEchoMs) {
    _exit(128 + number);
  }
}
}  // namespace

StopSignals::StopSignals() {
  first_signal = 0;
  struct sigaction action = {};
  action.sa_handler = note_signal;
  action.sa_flags = SA_RESTART;
  sigemptyset(&action.sa_mask);
  for (int i = 0; i < 3; ++i) {
    if (sigaction(kSignals[i], &action, &former_[i]) != 0) {
      throw Error(ExitCode::kInternal, fmt::format("cannot catch signal {}", kSignals[i]));
    }
  }
}

StopSignals::~StopSignals() {
  for (int i = 0; i < 3; ++i) sigaction(kSignals[i], &former_[i], nullptr);
}

void StopSignals::ignore() {
  for (struct sigaction& action : former_) action.sa_handler = SIG_IGN;
  for (int i = 0; i < 3; ++i) sigaction(kSignals[i], &former_[i], nullptr);
}

int StopSignals::signal() const { return first_signal; }

std::string StopSignals::name() const {
  switch (signal()) {
    case 0:
      return "none";
    case SIGTERM:
      return "SIGTERM";
    case SIGUSR1:
      return "SIGUSR1";
    default:
      return "SIGUSR2";
  }
}

}  // namespace tadapt

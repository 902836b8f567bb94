// The handler and the one flag a handler can set.
#include "runtime/comm/stop_signals.h"

#include <unistd.h>

#include "kernels/core/error.h"

namespace tadapt {
namespace {
constexpr int kSignals[] = {SIGTERM, SIGUSR1, SIGUSR2};

// A signal handler can reach nothing but objects of static storage: the one global of the program.
volatile std::sig_atomic_t first_signal = 0;

extern "C" void note_signal(int number) {
  if (first_signal != 0) _exit(128 + number);
  first_signal = number;
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

// The watching thread.
#include "runtime/comm/watchdog.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>

#include "kernels/core/error.h"

namespace tadapt {
namespace {
void end_process(const std::string& message) {
  fmt::print(stderr, "tadapt: {}\n", message);
  std::fflush(nullptr);
  std::_Exit(static_cast<int>(ExitCode::kWatchdog));
}
}  // namespace

Watchdog::Watchdog(std::string who, double bound_seconds, Expiry on_expiry)
    : who_(std::move(who)),
      bound_seconds_(bound_seconds),
      on_expiry_(on_expiry ? std::move(on_expiry) : Expiry(end_process)),
      thread_([this] { watch(); }) {}

Watchdog::~Watchdog() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void Watchdog::beat(std::string_view phase) {
  const std::lock_guard lock(mutex_);
  phase_ = phase;
  silent_seconds_ = 0;
}

void Watchdog::beat() {
  const std::lock_guard lock(mutex_);
  silent_seconds_ = 0;
}

void Watchdog::watch() {
  using Clock = std::chrono::steady_clock;
  const std::chrono::duration<double> tick(std::clamp(bound_seconds_ / 20, 0.001, 1.0));
  std::unique_lock lock(mutex_);
  auto last = Clock::now();
  while (!stopping_ && silent_seconds_ <= bound_seconds_) {
    changed_.wait_for(lock, tick);
    const auto now = Clock::now();
    // A tick that took much longer means that the process did not run: count it as two ticks at most.
    silent_seconds_ += std::min(std::chrono::duration<double>(now - last).count(), 2 * tick.count());
    last = now;
  }
  if (stopping_) return;
  const std::string message =
      fmt::format("{}: no sign of life for {:.0f} s, the last was '{}'", who_, bound_seconds_, phase_);
  lock.unlock();
  on_expiry_(message);
}

}  // namespace tadapt

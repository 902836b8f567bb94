// Backoff: waiting that is quick when the answer is near and cheap when it is not.
#pragma once

#include <algorithm>
#include <chrono>
#include <thread>

namespace tadapt {

/// Yields for a first while, then sleeps an eighth of what it has waited already, at most a millisecond. Ranks may
/// share cores, so it never spins without giving the core away.
class Backoff {
 public:
  explicit Backoff(double yielding_seconds) : yielding_seconds_(yielding_seconds) {}

  void pause() {
    if (waited_seconds_ < yielding_seconds_) {
      std::this_thread::yield();
    } else {
      std::this_thread::sleep_for(std::chrono::duration<double>(std::clamp(waited_seconds_ / 8, 2e-5, 1e-3)));
    }
    const auto now = Clock::now();
    // A longer gap means that this process was stopped or the machine suspended: not the peer's fault.
    waited_seconds_ += std::min(std::chrono::duration<double>(now - last_).count(), 1.0);
    last_ = now;
  }
  void restart() {
    waited_seconds_ = 0;
    last_ = Clock::now();
  }
  double waited_seconds() const { return waited_seconds_; }

 private:
  using Clock = std::chrono::steady_clock;
  double yielding_seconds_;
  double waited_seconds_ = 0;
  Clock::time_point last_ = Clock::now();
};

}  // namespace tadapt

// Watchdog: ends a process that has not said for too long that it is still getting on.
#pragma once

#include <condition_variable>
#include <functional>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>

namespace tadapt {

/// A thread that calls `on_expiry` once when no beat came within the bound. Time during which the whole process did not
/// run (suspended, stopped) does not count. The bound should exceed the communicator's timeout, which names the peer.
class Watchdog {
 public:
  using Expiry = std::function<void(const std::string& message)>;

  /// `who`: "rank 3/8 host". The default expiry prints the message on stderr and ends the process with exit code 5
  /// at once, without unwinding: the thread that hangs could not be unwound.
  Watchdog(std::string who, double bound_seconds, Expiry on_expiry = {});
  ~Watchdog();
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;

  /// The process is alive and now does `phase` ("step 12", "writing checkpoint 500"). Cheap; call it anywhere.
  void beat(std::string_view phase);
  /// The process is alive and still does what it did.
  void beat();

 private:
  void watch();

  const std::string who_;
  const double bound_seconds_;
  const Expiry on_expiry_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::string phase_ = "start";
  double silent_seconds_ = 0;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace tadapt

// Rounds: meetings of ranks that work on their own, so that none waits long for another and all stop together.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <string>

#include "runtime/train/progress.h"
#include "runtime/train/run_environment.h"

namespace tadapt {

/// A stop that all ranks know of: thrown on all of them in one round.
struct Stopped {};

/// Ranks meet about once a second while any of them works, however much each has to do. What they make does not depend
/// on when they meet.
class Rounds {
 public:
  struct Work {
    std::string name;          ///< "benchmark: adapter"
    std::string unit;          ///< "responses"
    std::int64_t total = 0;    ///< of all ranks
    std::int64_t done = 0;     ///< before
    double every_seconds = 5;  ///< progress is said
    std::string phase;         ///< for heartbeats
    /// Of the amounts of all steps of all ranks, and the seconds so far.
    std::function<std::string(double amount, double seconds)> note;
  };
  /// The environment must outlive it.
  Rounds(const RunEnvironment& environment, Work work)
      : environment_(environment),
        work_(std::move(work)),
        progress_(work_.name, work_.unit, work_.total, work_.done, work_.every_seconds, environment.print) {}

  /// One unit is done.
  void count() { ++units_; }
  /// A step of the work, not much longer than a second; may meet the others.
  void step(double amount);
  /// Nothing left to do on this rank: returns when that is so on all.
  void finish();

 private:
  using Clock = std::chrono::steady_clock;

  /// Whether a rank has work left.
  bool meet(double working);

  const RunEnvironment& environment_;
  Work work_;
  std::int64_t units_ = 0;
  double amount_ = 0.0;
  ProgressReport progress_;
  Clock::time_point last_ = Clock::now();
};

}  // namespace tadapt

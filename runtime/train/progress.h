// ProgressReport of long work: plain lines on rank 0, at most one every few seconds, with rate and remaining time.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <string>

namespace tadapt {

/// "1h02m", "3m20s", "45s".
std::string duration_text(double seconds);
/// "950", "12.3k", "4.56M", "7.8G".
std::string count_text(double count);

class ProgressReport {
 public:
  using Print = std::function<void(const std::string& line)>;
  /// `what` names the work ("capture"), `unit` what is counted ("rows"); `done` units are finished already (a resume).
  ProgressReport(std::string what, std::string unit, std::int64_t total, std::int64_t done, double every_seconds,
                 Print print);

  /// `done` units are finished now; prints when it is time, or at the end. `note` is asked for only when printing.
  void update(std::int64_t done, const std::function<std::string()>& note = {});

  double seconds() const;  ///< since construction
  double rate() const;     ///< units per second since construction

 private:
  using Clock = std::chrono::steady_clock;
  std::string what_, unit_;
  std::int64_t total_, first_, done_;
  double every_seconds_;
  Print print_;
  Clock::time_point start_, last_print_;
};

}  // namespace tadapt

#include "runtime/train/progress.h"

#include <fmt/format.h>

#include <cmath>

namespace tadapt {

std::string duration_text(double seconds) {
  const auto total = static_cast<std::int64_t>(std::llround(std::max(0.0, seconds)));
  if (total < 60) return fmt::format("{}s", total);
  if (total < 3600) return fmt::format("{}m{:02d}s", total / 60, total % 60);
  return fmt::format("{}h{:02d}m", total / 3600, total % 3600 / 60);
}

std::string count_text(double count) {
  if (count < 1e3) return fmt::format("{:.0f}", count);
  if (count < 1e6) return fmt::format("{:.1f}k", count / 1e3);
  if (count < 1e9) return fmt::format("{:.2f}M", count / 1e6);
  return fmt::format("{:.2f}G", count / 1e9);
}

ProgressReport::ProgressReport(std::string what, std::string unit, std::int64_t total, std::int64_t done,
                               double every_seconds, Print print)
    : what_(std::move(what)),
      unit_(std::move(unit)),
      total_(total),
      first_(done),
      done_(done),
      every_seconds_(every_seconds),
      print_(std::move(print)),
      start_(Clock::now()),
      last_print_(start_) {}

double ProgressReport::seconds() const { return std::chrono::duration<double>(Clock::now() - start_).count(); }

double ProgressReport::rate() const { return static_cast<double>(done_ - first_) / std::max(1e-9, seconds()); }

void ProgressReport::update(std::int64_t done, const std::function<std::string()>& note) {
  const bool finished = done >= total_ && done_ < total_;
  done_ = done;
  const auto now = Clock::now();
  if (!finished && std::chrono::duration<double>(now - last_print_).count() < every_seconds_) return;
  last_print_ = now;
  const double percent = total_ > 0 ? 100.0 * static_cast<double>(done_) / static_cast<double>(total_) : 100.0;
  const double remaining = rate() > 0.0 ? static_cast<double>(total_ - done_) / rate() : 0.0;
  print_(fmt::format("{}: {}/{} {} ({:.0f} %) {}/s, {} left{}{}", what_, done_, total_, unit_, percent,
                     count_text(rate()), duration_text(remaining), note ? ", " : "", note ? note() : ""));
}

}  // namespace tadapt

// StallClock: how long something was waited for, in all.
#pragma once

#include <chrono>

namespace tadapt {

class StallClock {
 public:
  /// What `wait` returns; the time it took counts.
  template <class Wait>
  decltype(auto) during(const Wait& wait) {
    struct Span {
      StallClock& clock;
      std::chrono::steady_clock::time_point start = std::chrono::steady_clock::now();
      ~Span() { clock.waited_ += std::chrono::steady_clock::now() - start; }
    };
    const Span span{*this};
    return wait();
  }
  double seconds() const { return waited_.count(); }

 private:
  std::chrono::duration<double> waited_{0.0};
};

}  // namespace tadapt

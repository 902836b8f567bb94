// The bootstrap over questions: draws that all models share, and intervals of what is computed of them.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <vector>

namespace tadapt {

/// A number with the ends of its 95 % interval. NaN: not defined.
struct Estimate {
  double value = 0.0, low = 0.0, high = 0.0;
};

inline constexpr std::uint64_t kResamples = 10'000;

/// The questions of resample number `resample`, as many as there are, with replacement: a function of (seed,
/// kBootstrap, resample).
std::vector<std::size_t> drawn_questions(std::int64_t questions, std::uint64_t seed, std::uint64_t resample);

/// `value` with the ends of the middle 95 % of the resamples' numbers that are defined (are not NaN).
Estimate interval(double value, std::vector<double> resampled);

/// {value, low, high}; null for what is not defined.
nlohmann::ordered_json json_of(const Estimate& estimate);

}  // namespace tadapt

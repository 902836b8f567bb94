#include "runtime/eval/bootstrap.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "kernels/core/random.h"

namespace tadapt {

std::vector<std::size_t> drawn_questions(std::int64_t questions, std::uint64_t seed, std::uint64_t resample) {
  const RandomStream random(seed, RandomPurpose::kBootstrap, resample, 0);
  std::vector<std::size_t> drawn;
  for (std::uint32_t i = 0; i < questions; ++i)
    drawn.push_back(static_cast<std::size_t>(random.below(i, static_cast<std::uint64_t>(questions))));
  return drawn;
}

Estimate interval(double value, std::vector<double> resampled) {
  constexpr double kUndefined = std::numeric_limits<double>::quiet_NaN();
  std::erase_if(resampled, [](double number) { return std::isnan(number); });
  if (resampled.empty() || std::isnan(value)) return {value, kUndefined, kUndefined};
  std::ranges::sort(resampled);
  const auto at = [&](double share) {
    return resampled[static_cast<std::size_t>(std::llround(share * static_cast<double>(resampled.size() - 1)))];
  };
  return {value, at(0.025), at(0.975)};
}

nlohmann::ordered_json json_of(const Estimate& estimate) {
  using Json = nlohmann::ordered_json;
  const auto number = [](double value) { return std::isnan(value) ? Json() : Json(value); };
  return {{"value", number(estimate.value)}, {"low", number(estimate.low)}, {"high", number(estimate.high)}};
}

}  // namespace tadapt

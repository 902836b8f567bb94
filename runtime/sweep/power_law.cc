#include "runtime/sweep/power_law.h"

#include <algorithm>
#include <boost/math/distributions/students_t.hpp>
#include <cmath>
#include <set>

namespace tadapt {
namespace {

bool usable(std::span<const double> values) {
  return std::ranges::all_of(values, [](double value) { return std::isfinite(value) && value > 0.0; });
}

}  // namespace

std::optional<PowerLaw> fit_power_law(std::span<const double> x, std::span<const double> y) {
  if (std::set<double>(x.begin(), x.end()).size() < 3 || !usable(x) || !usable(y)) return std::nullopt;
  const auto n = static_cast<double>(x.size());
  double mean_x = 0.0, mean_y = 0.0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    mean_x += std::log(x[i]) / n;
    mean_y += std::log(y[i]) / n;
  }
  double xx = 0.0, xy = 0.0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    xx += std::pow(std::log(x[i]) - mean_x, 2);
    xy += (std::log(x[i]) - mean_x) * (std::log(y[i]) - mean_y);
  }
  PowerLaw law;
  law.exponent = xy / xx;
  const double intercept = mean_y - law.exponent * mean_x;
  law.amplitude = std::exp(intercept);
  double residual = 0.0;
  for (std::size_t i = 0; i < x.size(); ++i)
    residual += std::pow(std::log(y[i]) - intercept - law.exponent * std::log(x[i]), 2);
  const boost::math::students_t distribution(n - 2);
  const double half_width = boost::math::quantile(distribution, 0.975) * std::sqrt(residual / (n - 2) / xx);
  law.low = law.exponent - half_width;
  law.high = law.exponent + half_width;
  return law;
}

}  // namespace tadapt

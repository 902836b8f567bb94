// What gradients are held against: central differences of a formula in double.
#pragma once

#include <functional>
#include <vector>

namespace tadapt::testing {

using Formula = std::function<double(const std::vector<double>&)>;

/// df/dx_i, good to about 1e-9 of f's third derivative and of f's size.
inline double slope(const Formula& f, std::vector<double> x, std::size_t i) {
  constexpr double kStep = 1e-5;
  const double at = x[i];
  x[i] = at + kStep;
  const double above = f(x);
  x[i] = at - kStep;
  return (above - f(x)) / (2 * kStep);
}

}  // namespace tadapt::testing

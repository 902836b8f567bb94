// PowerLaw: how a figure falls with the size of the dictionary.
#pragma once

#include <optional>
#include <span>

namespace tadapt {

/// y = amplitude · x^exponent, and the exponent's 95 % interval.
struct PowerLaw {
  double amplitude = 0.0;
  double exponent = 0.0;
  double low = 0.0, high = 0.0;
};

/// Least squares of log y over log x; the interval is Student's with n − 2 degrees of freedom. Nothing when fewer than
/// three different x, or a number that is not positive and finite, leave no fit.
std::optional<PowerLaw> fit_power_law(std::span<const double> x, std::span<const double> y);

}  // namespace tadapt

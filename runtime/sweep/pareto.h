// Pareto: the points of a study that no other one beats in both of two figures, and the one of them to begin with.
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <vector>

namespace tadapt {

/// Two figures, of both of which less is better.
struct Tradeoff {
  double cost = 0.0;   ///< L0
  double error = 0.0;  ///< NMSE or KL
};

/// Indices of the points that no other one beats in one figure without being beaten in the other, by ascending cost.
/// Points with a figure that is not finite are left out.
std::vector<std::size_t> pareto_front(std::span<const Tradeoff> points);

/// Of a front's indices the knee: where the curve of log error over log cost lies furthest below the line between its
/// ends, both axes scaled to their range. Of fewer than three the one of least error; nothing of none. Fronts with a
/// figure of 0 have their knee at the least error too.
std::optional<std::size_t> knee(std::span<const Tradeoff> points, std::span<const std::size_t> front);

}  // namespace tadapt

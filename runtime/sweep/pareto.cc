#include "runtime/sweep/pareto.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <tuple>

namespace tadapt {

std::vector<std::size_t> pareto_front(std::span<const Tradeoff> points) {
  std::vector<std::size_t> order;
  for (std::size_t i = 0; i < points.size(); ++i)
    if (std::isfinite(points[i].cost) && std::isfinite(points[i].error)) order.push_back(i);
  std::ranges::sort(order, {}, [&](std::size_t i) { return std::tuple(points[i].cost, points[i].error, i); });
  std::vector<std::size_t> front;
  double least = std::numeric_limits<double>::infinity();
  for (const std::size_t i : order) {
    if (points[i].error >= least) continue;
    least = points[i].error;
    front.push_back(i);
  }
  return front;
}

std::optional<std::size_t> knee(std::span<const Tradeoff> points, std::span<const std::size_t> front) {
  if (front.empty()) return std::nullopt;
  const Tradeoff &first = points[front.front()], &last = points[front.back()];
  const bool positive = first.cost > 0.0 && last.error > 0.0;
  if (front.size() < 3 || !positive) return front.back();
  // Both in [0, 1], from (0, 1) down to (1, 0): how far below that line is 1 − x − y, but for a factor.
  const auto below_line = [&](std::size_t i) {
    const double x = std::log(points[i].cost / first.cost) / std::log(last.cost / first.cost);
    const double y = std::log(points[i].error / last.error) / std::log(first.error / last.error);
    return 1.0 - x - y;
  };
  return *std::ranges::max_element(front, {}, below_line);
}

}  // namespace tadapt

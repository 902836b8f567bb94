// Scale and concentration of a layer's Δ.
#include "data/delta_statistics.h"

#include <algorithm>
#include <functional>
#include <numeric>
#include <vector>

#include "kernels/core/error.h"

namespace tadapt {

double delta_scale_square(std::span<const double> square_norms) {
  require_shape(!square_norms.empty(), "Δ of no rows");
  const auto rows = std::min<std::size_t>(square_norms.size(), kScaleRows);
  return std::accumulate(square_norms.begin(), square_norms.begin() + static_cast<std::ptrdiff_t>(rows), 0.0) /
         static_cast<double>(rows);
}

DeltaStatistics delta_statistics(std::span<const double> square_norms, std::span<const std::int32_t> positions) {
  require_shape(!square_norms.empty() && square_norms.size() == positions.size(), "Δ of {} rows with {} positions",
                square_norms.size(), positions.size());
  const std::size_t rows = square_norms.size();
  DeltaStatistics statistics;
  statistics.scale_square = delta_scale_square(square_norms);
  const double total = std::accumulate(square_norms.begin(), square_norms.end(), 0.0);
  if (total == 0) return statistics;
  std::vector<double> largest((rows + 999) / 1000);
  std::partial_sort_copy(square_norms.begin(), square_norms.end(), largest.begin(), largest.end(), std::greater<>());
  statistics.largest_rows_share = std::accumulate(largest.begin(), largest.end(), 0.0) / total;
  double at_first_position = 0;
  for (std::size_t i = 0; i < rows; ++i) at_first_position += positions[i] == 0 ? square_norms[i] : 0.0;
  statistics.first_position_share = at_first_position / total;
  return statistics;
}

}  // namespace tadapt

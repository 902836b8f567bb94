// What a run knows about a layer's Δ before it trains: its scale, and how much of it sits in a few rows.
#pragma once

#include <cstdint>
#include <span>

namespace tadapt {

/// Rows that decide the scale, alike for caches and streams.
inline constexpr std::int64_t kScaleRows = 65536;

struct DeltaStatistics {
  double scale_square = 0;          ///< s² = mean ‖Δ‖² over the first min(N, kScaleRows) rows
  double largest_rows_share = 0;    ///< Σ‖Δ‖² of the ceil(N / 1000) largest rows / Σ‖Δ‖² of all
  double first_position_share = 0;  ///< Σ‖Δ‖² of the rows at position 0 / Σ‖Δ‖² of all
};

/// s² from ‖Δ‖² of the first rows, in sequence order: those of all N rows, or of kScaleRows at least; the sum runs in
/// double, row after row.
double delta_scale_square(std::span<const double> square_norms);

/// Both spans hold N >= 1 rows in sequence order. Sums run in double, one after the other: rows in their order, the
/// largest in falling order. Shares are 0 where all Δ are 0.
DeltaStatistics delta_statistics(std::span<const double> square_norms, std::span<const std::int32_t> positions);

}  // namespace tadapt

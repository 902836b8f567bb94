// What attention's CPU halves share: how its work is cut, and products of a few rows with a tile.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

namespace tadapt::cpu {

/// Keys looked at together; tiles start at multiples of it from the sequence's first token.
inline constexpr std::int64_t kKeys = 64;
/// Query rows (positions × heads of one group) that share a packed tile of keys, about.
inline constexpr std::int64_t kRows = 128;

struct Heads {
  std::int64_t queries, groups, size;
  std::int64_t group() const { return queries / groups; }
  /// Positions whose heads of one group make up about kRows rows.
  std::int64_t positions() const { return std::max<std::int64_t>(1, kRows / std::max<std::int64_t>(1, group())); }
};

/// y_i += Σ_c coefficients_c · rows_c,i in fused multiply-adds, c in order.
struct Sum {
  const float* coefficients;
  float* y;
};

/// `count` rows of n, one after another, into one sum or into four at once: each row is then loaded once. However many
/// sums are taken together, each has the same bits.
void accumulate_one(const Sum& sum, const float* rows, std::int64_t count, std::int64_t n);
void accumulate_four(const std::array<Sum, 4>& sums, const float* rows, std::int64_t count, std::int64_t n);

}  // namespace tadapt::cpu

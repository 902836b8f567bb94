// The largest or smallest few numbers of each row: of many, only these leave a device.
#pragma once

#include "kernels/core/backends.h"

namespace tadapt {

enum class Extreme : std::uint8_t { kLargest, kSmallest };

/// A number and its place in its row.
struct Ranked {
  float number;
  std::int32_t id;
};

/// Which of two numbers of a row stands first: the more extreme one, of equal ones that with the lower id. NaN stands
/// last.
struct RankOrder {
  Extreme extreme;
  TADAPT_HOST_DEVICE bool operator()(const Ranked& a, const Ranked& b) const {
    const bool a_is_number = a.number == a.number, b_is_number = b.number == b.number;
    if (a_is_number != b_is_number) return a_is_number;
    if (!a_is_number || a.number == b.number) return a.id < b.id;
    return extreme == Extreme::kLargest ? a.number > b.number : a.number < b.number;
  }
};

TADAPT_BACKENDS(void top_k(Context& context, const Tensor& x, Extreme extreme, const Tensor& numbers,
                           const Tensor& ids);)

/// numbers_r, ids_r = the k first numbers of x_r in RankOrder, and their places in the row
///   x        [R, N] float32, 0 < N < 2^31, read only
///   numbers  [R, k] float32, 0 < k <= N, overwritten
///   ids      [R, k] int32, overwritten
/// Exact, so the same on every device; a row depends on itself only. On a GPU it reads each row k times, from cache
/// where a row fits. Oracle: sorting.
void top_k(Context& context, const Tensor& x, Extreme extreme, const Tensor& numbers, const Tensor& ids);

}  // namespace tadapt

// FiniteRows: notices rows that are not finite without holding up the pass that makes them.
#pragma once

#include <optional>
#include <vector>

#include "kernels/core/context.h"

namespace tadapt {

/// Keeps the rows' square norms where the context computes until it is asked: in double they are finite exactly where
/// all floats of a row are.
class FiniteRows {
 public:
  /// Forgets what it knows, with room for this many rows to come.
  void begin(const Context& context, std::int64_t rows);
  /// Looks at values [R, D] float32. Never waits.
  void add(Context& context, const Tensor& values);

  /// Row `row` of what the `set`-th add() since begin() was given.
  struct Place {
    std::size_t set;
    std::int64_t row;
  };
  /// The first that is not finite, in the order of adding. Waits for the context.
  std::optional<Place> first_bad(Context& context) const;

 private:
  Buffer memory_;
  std::vector<std::int64_t> ends_;  ///< of each set, in rows of all
};

}  // namespace tadapt

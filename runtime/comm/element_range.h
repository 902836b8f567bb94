// ElementRange: a stretch of an array, and which stretch of it is a rank's part.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/core/error.h"
#include "runtime/comm/reduction_tree.h"

namespace tadapt {

/// Elements [begin, end) of the array.
struct ElementRange {
  std::int64_t begin = 0, end = 0;
  std::int64_t size() const { return end - begin; }
  friend bool operator==(const ElementRange&, const ElementRange&) = default;
};

/// The part of `rank` when an array is cut among the ranks of a group: equally many whole blocks of kReductionBlock
/// elements each, in rank order; what is left over, less than a block for each rank, is the last rank's too. So parts
/// begin on block borders, and an array of fewer blocks than ranks is the last rank's altogether.
inline ElementRange part_of(std::int64_t elements, int rank, int ranks) {
  require_shape(elements >= 0 && rank >= 0 && rank < ranks, "part {} of {} of {} elements", rank, ranks, elements);
  const std::int64_t equal = elements / kReductionBlock / ranks * kReductionBlock;
  return {rank * equal, rank + 1 == ranks ? elements : (rank + 1) * equal};
}

}  // namespace tadapt

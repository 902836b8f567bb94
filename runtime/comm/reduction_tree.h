// The fixed tree in which the leaves of a global batch join, first within a rank, then across ranks.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/core/context.h"

namespace tadapt {

/// Elements per block of every blocked sum; shard and piece borders lie on blocks.
inline constexpr std::int64_t kReductionBlock = 4096;

/// Joins values like a binary counter, left + right: ((v0 + v1) + (v2 + v3)) + …; what is left over at the end joins
/// from the right. Over all leaves of a batch this equals joining each rank's leaves, then ranks pairwise. 0 for none.
double join_leaves(std::span<const double> values);

/// Joins leaf buffers like a binary counter, elementwise in float32, left + right, where they lie. Use per sum:
///   joiner.start(sum);  for each leaf { fill(joiner.slot()); joiner.push(context); }
/// The destination serves as the first buffer; up to log2(leaves) further ones are kept between sums.
/// The result does not depend on the number of threads.
class LeafJoiner {
 public:
  struct Sum {
    Tensor destination;       ///< [n] float32: the result
    std::int64_t leaves = 0;  ///< that will be pushed, at least 1
    /// [m] float64, or Tensor{}: Σ x² over each of the result's first m blocks, taken as the last leaf joins
    Tensor square_sums = {};
  };
  /// Begins a new sum.
  void start(Sum sum);
  /// Where the next leaf's numbers go: as many as the destination has, content undefined, every one to be written.
  Tensor slot();
  /// The slot is filled: joins it with what is complete to its left, and after the last leaf what is left over.
  void push(Context& context);
  /// Bytes of the buffers beside the destination.
  std::int64_t scratch_bytes() const;

 private:
  Tensor level(std::size_t index);
  std::int64_t squared_elements() const;
  void join_last_two(Context& context);

  Sum sum_;
  std::vector<Buffer> buffers_;
  std::size_t depth_ = 0;  ///< buffers that hold a partial sum
  std::int64_t pushed_ = 0;
};

/// Bytes of buffers a LeafJoiner keeps beside its destination for sums of this many elements and leaves.
std::int64_t leaf_joiner_bytes(std::int64_t elements, std::int64_t leaves);

}  // namespace tadapt

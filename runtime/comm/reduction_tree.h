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

/// Joins leaf buffers like a binary counter, elementwise in float32, left + right. Use per sum:
///   joiner.start(destination);  for each leaf { fill(joiner.slot()); joiner.push(context); }  joiner.finish(context);
/// The destination serves as the first buffer; up to log2(leaves) further ones are kept between sums.
/// The result does not depend on the number of threads.
class LeafJoiner {
 public:
  /// Begins a new sum, whose result will be in `destination`.
  void start(std::span<float> destination);
  /// Where the next leaf's numbers go: as many as the destination has, content undefined, every one to be written.
  std::span<float> slot();
  /// The slot is filled: joins it with what is complete to its left.
  void push(const Context& context);
  /// Joins what is left over. Afterwards the destination holds the sum (zeros when nothing was pushed).
  void finish(const Context& context);
  /// Bytes of the buffers beside the destination.
  std::int64_t scratch_bytes() const;

 private:
  std::span<float> level(std::size_t index);
  void join_last_two(const Context& context);

  std::span<float> destination_;
  std::vector<std::vector<float>> buffers_;
  std::size_t depth_ = 0;  ///< buffers that hold a partial sum
  std::uint64_t pushed_ = 0;
};

/// Bytes of buffers a LeafJoiner keeps beside its destination for sums of this many elements and leaves.
std::int64_t leaf_joiner_bytes(std::int64_t elements, std::int64_t leaves);

}  // namespace tadapt

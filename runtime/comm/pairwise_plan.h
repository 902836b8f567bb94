// The messages by which a group sums one array pairwise, whoever carries them.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

namespace tadapt {

/// Elements [begin, end) of the array.
struct ElementRange {
  std::int64_t begin = 0, end = 0;
  std::int64_t size() const { return end - begin; }
};

/// One exchange with one peer; either range may be empty.
struct PairwiseStep {
  enum class Arrival : std::uint8_t { kAddOnTheRight, kAddOnTheLeft, kCopy };
  int peer;          ///< rank of the group
  ElementRange out;  ///< what the peer gets
  ElementRange in;   ///< where its numbers go
  Arrival arrival;   ///< own + arrived, arrived + own, or arrived in place of own
};

/// The steps of `rank` that leave the sum over all ranks, in the tree of Communicator::start_sum, on every one of them;
/// the number of ranks is a power of two.
///
/// Short arrays go whole to the partner at distance 1, 2, 4, …. Longer ones are halved at each distance, on block
/// borders (the lower rank keeps the lower half), and the finished parts travel back in the opposite order: the same
/// additions, and 2(1 − 1/G) times the bytes instead of log2(G) times.
std::vector<PairwiseStep> plan_pairwise_sum(int rank, int ranks, std::int64_t elements);

/// ConfigError naming the sum unless the number of ranks is a power of two.
void require_power_of_two(int ranks, std::string_view label);

}  // namespace tadapt

// The messages by which a group sums, scatters and gathers one array pairwise, whoever carries them.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "runtime/comm/communicator.h"

namespace tadapt {

/// One exchange with one peer; either range may be empty.
struct PairwiseStep {
  enum class Arrival : std::uint8_t { kAddOnTheRight, kAddOnTheLeft, kCopy };
  int peer;          ///< rank of the group
  ElementRange out;  ///< what the peer gets
  ElementRange in;   ///< where its numbers go
  Arrival arrival;   ///< own + arrived, arrived + own, or arrived in place of own
};

/// The steps of `rank` that leave the sum over all ranks, in the tree of Communicator::start_sum, on every one of them;
/// the number of ranks is a power of two, here and below.
///
/// Short arrays go whole to the partner at distance 1, 2, 4, …. Longer ones are halved at each distance, on block
/// borders (the lower rank keeps the lower half), and the finished parts travel back in the opposite order: the same
/// additions, and 2(1 − 1/G) times the bytes instead of log2(G) times.
std::vector<PairwiseStep> plan_pairwise_sum(int rank, int ranks, std::int64_t elements);

/// The steps of `rank` that leave the sum of parts[rank] there, in the same tree; one part a rank. At each distance it
/// keeps the parts of those ranks it can still reach and gives away those of the others: (1 − 1/G) times the bytes, in
/// G − 1 messages of one part each. Parts of other ranks are left as partial sums.
std::vector<PairwiseStep> plan_scatter_sum(int rank, std::span<const ElementRange> parts);

/// The same way back: the steps of `rank` by which every part comes to all ranks from the one whose part it is.
std::vector<PairwiseStep> plan_gather(int rank, std::span<const ElementRange> parts);

/// part_of every rank.
std::vector<ElementRange> parts_of(std::int64_t elements, int ranks);

/// Elements of a piece: a multiple of the reduction block, small enough to be added without holding others up.
inline constexpr std::size_t kPieceElements = std::size_t{1} << 20;

/// A part of an array that travels by itself; its steps count from values.begin.
struct PlannedPiece {
  ElementRange values;
  std::vector<PairwiseStep> steps;
};
/// The pieces of a collective of so many elements. A sum is cut as it lies; of a scatter or a gather a piece is a slice
/// of every rank's part, so that parts stay whole.
std::vector<PlannedPiece> plan_pieces(Collective collective, int rank, int ranks, std::int64_t elements);

/// Bytes of float32 that `rank` sends for them; 0 where it is alone.
std::int64_t sent_bytes(Collective collective, int rank, int ranks, std::int64_t elements);
/// Bytes that each rank sends so that all get everyone's `bytes`: everybody else's pass through it once.
inline std::int64_t gather_sent_bytes(int ranks, std::int64_t bytes) { return (ranks - 1) * bytes; }

/// ConfigError naming the sum unless the number of ranks is a power of two.
void require_power_of_two(int ranks, std::string_view label);

}  // namespace tadapt

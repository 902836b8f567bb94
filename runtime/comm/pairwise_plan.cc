// Who sends which part to whom.
#include "runtime/comm/pairwise_plan.h"

#include <algorithm>
#include <bit>

#include "kernels/core/error.h"

namespace tadapt {
namespace {
// Below this, twice the messages cost more than the bytes saved.
constexpr std::int64_t kWholeElements = 4 * kReductionBlock;
constexpr auto kPiece = static_cast<std::int64_t>(kPieceElements);

/// Where the lower half of a range ends.
std::int64_t middle(ElementRange range) {
  const std::int64_t blocks = (range.size() + kReductionBlock - 1) / kReductionBlock;
  return range.begin + std::min(range.size(), (blocks + 1) / 2 * kReductionBlock);
}
}  // namespace

std::vector<PairwiseStep> plan_pairwise_sum(int rank, int ranks, std::int64_t elements) {
  using Arrival = PairwiseStep::Arrival;
  std::vector<PairwiseStep> steps, way_back;
  ElementRange values{0, elements};
  for (int distance = 1; distance < ranks; distance *= 2) {
    const bool lower = (rank & distance) == 0;
    const int peer = rank ^ distance;
    const Arrival add = lower ? Arrival::kAddOnTheRight : Arrival::kAddOnTheLeft;
    if (elements <= kWholeElements) {
      steps.push_back({peer, values, values, add});
      continue;
    }
    const ElementRange lower_half{values.begin, middle(values)}, upper_half{middle(values), values.end};
    const auto kept = lower ? lower_half : upper_half;
    const auto given = lower ? upper_half : lower_half;
    steps.push_back({peer, given, kept, add});
    way_back.push_back({peer, kept, given, Arrival::kCopy});
    values = kept;
  }
  steps.insert(steps.end(), way_back.rbegin(), way_back.rend());
  return steps;
}

std::vector<PairwiseStep> plan_scatter_sum(int rank, std::span<const ElementRange> parts) {
  using Arrival = PairwiseStep::Arrival;
  const int ranks = static_cast<int>(parts.size());
  std::vector<PairwiseStep> steps;
  for (int distance = 1; distance < ranks; distance *= 2) {
    const Arrival add = (rank & distance) == 0 ? Arrival::kAddOnTheRight : Arrival::kAddOnTheLeft;
    // The ranks still to be reached are those at multiples of twice this distance.
    for (int kept = rank % (2 * distance); kept < ranks; kept += 2 * distance) {
      const int given = kept ^ distance;
      steps.push_back(
          {rank ^ distance, parts[static_cast<std::size_t>(given)], parts[static_cast<std::size_t>(kept)], add});
    }
  }
  return steps;
}

std::vector<PairwiseStep> plan_gather(int rank, std::span<const ElementRange> parts) {
  std::vector<PairwiseStep> steps = plan_scatter_sum(rank, parts);
  std::ranges::reverse(steps);
  for (PairwiseStep& step : steps) step = {step.peer, step.in, step.out, PairwiseStep::Arrival::kCopy};
  return steps;
}

std::vector<ElementRange> parts_of(std::int64_t elements, int ranks) {
  std::vector<ElementRange> parts;
  for (int rank = 0; rank < ranks; ++rank) parts.push_back(part_of(elements, rank, ranks));
  return parts;
}

std::vector<PlannedPiece> plan_pieces(Collective collective, int rank, int ranks, std::int64_t elements) {
  std::vector<PlannedPiece> pieces;
  if (collective == Collective::kSum) {
    for (std::int64_t begin = 0; begin < elements; begin += kPiece) {
      const ElementRange values{begin, std::min(begin + kPiece, elements)};
      pieces.push_back({values, plan_pairwise_sum(rank, ranks, values.size())});
    }
    return pieces;
  }
  const std::vector<ElementRange> parts = parts_of(elements, ranks);
  const std::int64_t slice = std::max(kReductionBlock, kPiece / ranks);
  for (std::int64_t begin = 0; begin < parts.back().size(); begin += slice) {  // the last part is the longest
    std::vector<ElementRange> slices;
    for (const ElementRange& part : parts)
      slices.push_back({std::min(part.begin + begin, part.end), std::min(part.begin + begin + slice, part.end)});
    pieces.push_back({{0, elements},
                      collective == Collective::kGather ? plan_gather(rank, slices) : plan_scatter_sum(rank, slices)});
  }
  return pieces;
}

std::int64_t sent_bytes(Collective collective, int rank, int ranks, std::int64_t elements) {
  if (ranks == 1) return 0;
  std::int64_t sent = 0;
  for (const PlannedPiece& piece : plan_pieces(collective, rank, ranks, elements))
    for (const PairwiseStep& step : piece.steps) sent += step.out.size();
  return sent * static_cast<std::int64_t>(sizeof(float));
}

void require_power_of_two(int ranks, std::string_view label) {
  if (!std::has_single_bit(static_cast<unsigned>(ranks)))
    throw ConfigError("'{}': a sum over {} ranks; the number must be a power of two", label, ranks);
}

}  // namespace tadapt

// Who sends which part to whom.
#include "runtime/comm/pairwise_plan.h"

#include <algorithm>
#include <bit>

#include "kernels/core/error.h"
#include "runtime/comm/reduction_tree.h"

namespace tadapt {
namespace {
// Below this, twice the messages cost more than the bytes saved.
constexpr std::int64_t kWholeElements = 4 * kReductionBlock;

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

void require_power_of_two(int ranks, std::string_view label) {
  if (!std::has_single_bit(static_cast<unsigned>(ranks)))
    throw ConfigError("'{}': a sum over {} ranks; the number must be a power of two", label, ranks);
}

}  // namespace tadapt

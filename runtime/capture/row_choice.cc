#include "runtime/capture/row_choice.h"

#include <algorithm>

#include "kernels/core/random.h"

namespace tadapt {

std::vector<std::int32_t> chosen_positions(const RowChoice& choice, std::int64_t sequence, std::int64_t length) {
  const std::int64_t eligible = std::max<std::int64_t>(0, length - choice.drop_first_positions);
  const std::int64_t wanted =
      choice.tokens_per_sequence == 0 ? eligible : std::min(eligible, choice.tokens_per_sequence);
  const RandomStream random(choice.seed, RandomPurpose::kTokenSubsample, 0, static_cast<std::uint64_t>(sequence));
  std::vector<std::int32_t> positions;
  positions.reserve(static_cast<std::size_t>(wanted));
  // Selection sampling (Knuth, The Art of Computer Programming 2, 3.4.2, algorithm S): each subset is equally likely.
  for (std::int64_t i = 0; i < eligible; ++i) {
    const std::int64_t missing = wanted - static_cast<std::int64_t>(positions.size());
    if (missing == 0) break;
    const std::int64_t left = eligible - i;
    const bool take =
        missing == left || static_cast<std::int64_t>(
                               random.below(static_cast<std::uint32_t>(i), static_cast<std::uint64_t>(left))) < missing;
    if (take) positions.push_back(static_cast<std::int32_t>(choice.drop_first_positions + i));
  }
  return positions;
}

}  // namespace tadapt

#include "runtime/analysis/contrast_windows.h"

#include <algorithm>
#include <tuple>

#include "kernels/core/random.h"

namespace tadapt {

TokenRange window_around(std::int32_t position, std::int64_t tokens) {
  return {std::max(0, position - kTokensBefore),
          static_cast<std::int32_t>(std::min<std::int64_t>(tokens, std::int64_t{position} + kTokensAfter + 1))};
}

ContrastWindows::ContrastWindows(const MarkedCorpus& corpus, std::uint64_t seed, int count) {
  require_shape(0 <= count && count <= kMostContrastWindows, "{} contrast windows", count);
  using Drawn = std::tuple<std::uint64_t, std::int64_t, std::int32_t>;  // draw, sequence, position
  std::vector<Drawn> lowest;                                            // a heap: the one to go is in front
  for (std::int64_t i = 0; count > 0 && i < corpus.size(); ++i) {
    const std::int64_t sequence = corpus.number(i);
    const RandomStream random(seed, RandomPurpose::kContrast, 0, static_cast<std::uint64_t>(sequence));
    const auto tokens = static_cast<std::int32_t>(corpus.places(i).size());
    for (std::int32_t position = 0; position < tokens; ++position) {
      const Drawn drawn{random.bits64(static_cast<std::uint32_t>(position)), sequence, position};
      if (std::ssize(lowest) == count) {
        if (drawn > lowest.front()) continue;
        std::ranges::pop_heap(lowest);
        lowest.pop_back();
      }
      lowest.push_back(drawn);
      std::ranges::push_heap(lowest);
    }
  }
  for (const auto& [draw, sequence, position] : lowest) windows_.push_back({sequence, position});
  std::ranges::sort(windows_, {},
                    [](const ContrastWindow& window) { return std::pair(window.sequence, window.position); });
}

void ContrastWindows::mark(BatchPlaces& batch) const {
  const std::int64_t sequence = batch.sequences.back();
  const auto rows = static_cast<std::int32_t>(batch.positions.size());
  const std::int32_t tokens = batch.positions.back() + 1;
  for (auto window = std::ranges::lower_bound(windows_, sequence, {}, &ContrastWindow::sequence);
       window != windows_.end() && window->sequence == sequence; ++window) {
    const auto [begin, end] = window_around(window->position, tokens);
    batch.windows.push_back({.number = static_cast<std::uint16_t>(window - windows_.begin()),
                             .begin = rows - tokens + begin,
                             .end = rows - tokens + end});
  }
}

}  // namespace tadapt

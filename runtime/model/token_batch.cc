#include "runtime/model/token_batch.h"

#include <limits>

namespace tadapt {

void TokenBatch::append(std::span<const std::int32_t> sequence, std::int32_t before) {
  require_shape(ids.size() + sequence.size() <= std::numeric_limits<std::int32_t>::max(),
                "token batch: {} tokens and {} more", ids.size(), sequence.size());
  ids.insert(ids.end(), sequence.begin(), sequence.end());
  for (std::size_t i = 0; i < sequence.size(); ++i) positions.push_back(before + static_cast<std::int32_t>(i));
  offsets.push_back(static_cast<std::int32_t>(ids.size()));
}

void TokenBatch::clear() {
  ids.clear();
  positions.clear();
  offsets.assign(1, 0);
}

}  // namespace tadapt

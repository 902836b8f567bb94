// From samples to rows to chunks.
#include "data/loader_plan.h"

#include <algorithm>

namespace tadapt {

BlockPlan plan_block(const std::vector<CacheShard>& shards, const DataOrder& order, const BatchSlice& slice,
                     std::int64_t begin) {
  BlockPlan plan{begin, order.block_end(begin, slice.batch_rows), {}, {}};
  const std::vector<std::int64_t> rows = order.rows_of(plan.begin, plan.end);
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const std::int64_t sample = begin + static_cast<std::int64_t>(i);
    if (slice.holds(sample)) plan.rows.push_back({rows[i], sample});
  }
  std::sort(plan.rows.begin(), plan.rows.end(), [](const SampleRow& a, const SampleRow& b) { return a.row < b.row; });

  std::size_t shard = 0;
  for (std::size_t i = 0; i < plan.rows.size(); ++i) {
    const std::int64_t row = plan.rows[i].row;
    while (row >= shards[shard].first_row + shards[shard].rows) ++shard;
    const std::int64_t chunk = (row - shards[shard].first_row) / shards[shard].datasets.front().layout.chunk_rows;
    if (plan.chunks.empty() || plan.chunks.back().shard != shard || plan.chunks.back().chunk != chunk) {
      plan.chunks.push_back({shard, chunk, i, i});
    }
    plan.chunks.back().end = i + 1;
  }
  return plan;
}

}  // namespace tadapt

#include "runtime/capture/row_schedule.h"

#include <algorithm>

namespace tadapt {

RowSchedule::RowSchedule(const CapturePlan& plan) : plan_(plan), first_rows_{0} {
  for (const CapturePlan::Sequence& sequence : plan.sequences)
    first_rows_.push_back(first_rows_.back() + sequence.rows);
}

std::vector<RowBatch> RowSchedule::batches(std::int64_t begin, std::int64_t end, int ranks) const {
  require_shape(0 <= begin && begin <= end && end <= plan_.rows, "rows [{}, {}) of {}", begin, end, plan_.rows);
  if (begin == end) return {};
  const auto sequence_of = [&](std::int64_t row) {
    return static_cast<std::size_t>(std::ranges::upper_bound(first_rows_, row) - first_rows_.begin() - 1);
  };
  const std::size_t first = sequence_of(begin), last = sequence_of(end - 1);
  std::int64_t tokens = 0;
  for (std::size_t i = first; i <= last; ++i) tokens += plan_.sequences[i].tokens;
  const std::int64_t count = (tokens + ranks * kBatchTokens - 1) / (ranks * kBatchTokens) * ranks;

  std::vector<RowBatch> batches;
  std::int64_t tokens_before = 0, last_number = -1;
  for (std::size_t i = first; i <= last; ++i) {
    if (plan_.sequences[i].rows == 0) continue;
    const std::int64_t number = (2 * tokens_before + plan_.sequences[i].tokens) * count / (2 * tokens);
    tokens_before += plan_.sequences[i].tokens;
    if (number != last_number) batches.push_back({.begin = begin, .end = begin, .parts = {}});
    last_number = number;
    const std::int64_t stop = std::min(end, first_rows_[i + 1]);
    batches.back().parts.push_back({static_cast<std::int64_t>(i), begin - first_rows_[i], stop - first_rows_[i]});
    begin = batches.back().end = stop;
  }
  return batches;
}

/// Of sequences whose middles are not further apart than a batch is long.
std::int64_t most_batch_rows(const CapturePlan& plan) {
  std::int64_t most = 0, rows = 0, begin_middle = 0, end_middle = 0;  // middles in half tokens
  std::size_t begin = 0;
  for (std::size_t i = 0; i < plan.sequences.size(); ++i) {
    const CapturePlan::Sequence& sequence = plan.sequences[i];
    end_middle += i == 0 ? 0 : plan.sequences[i - 1].tokens + sequence.tokens;
    rows += sequence.rows;
    for (; end_middle - begin_middle > 2 * RowSchedule::kBatchTokens; ++begin) {
      rows -= plan.sequences[begin].rows;
      begin_middle += plan.sequences[begin].tokens + plan.sequences[begin + 1].tokens;
    }
    most = std::max(most, rows);
  }
  return most;
}

}  // namespace tadapt

// RowSchedule: how ranks share the work of making a run of rows.
#pragma once

#include <cstdint>
#include <vector>

#include "runtime/capture/capture_plan.h"

namespace tadapt {

/// What is run together: consecutive rows of the corpus, by the sequences they are of.
struct RowBatch {
  std::int64_t begin = 0, end = 0;
  std::vector<SequenceRows> parts;
};

/// Numbers the plan's rows through its sequences, as a cache does, and cuts runs of them into batches.
class RowSchedule {
 public:
  /// The plan must outlive the schedule.
  explicit RowSchedule(const CapturePlan& plan);

  /// Rows [begin, end) in their order, in batches of whole sequences for `ranks` ranks to take in turn. Their number is
  /// at most the least multiple of the ranks with which kBatchTokens tokens are enough for each; a sequence falls into
  /// the batch that its middle token does. A pure function, so that all ranks know it.
  std::vector<RowBatch> batches(std::int64_t begin, std::int64_t end, int ranks) const;

  static constexpr std::int64_t kBatchTokens = 4096;

 private:
  const CapturePlan& plan_;
  std::vector<std::int64_t> first_rows_;  ///< of each sequence; then all rows
};

/// Rows that no batch of any run exceeds.
std::int64_t most_batch_rows(const CapturePlan& plan);

}  // namespace tadapt

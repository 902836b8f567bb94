// The bytes that a rank sends in one training step, from the plans and schedules by which it will send them.
#pragma once

#include <span>

#include "runtime/comm/process_grid.h"
#include "runtime/train/run_options.h"
#include "runtime/train/run_shape.h"

namespace tadapt {

struct BridgingShape;

/// By what they carry. Not in it is what is not sent in every step: checkpoints, held-out figures, the start.
struct StepTraffic {
  std::int64_t gradients = 0;  ///< and what the ranks count with them
  std::int64_t weights = 0;    ///< where the ranks share AdamW's state: what each has updated, and square sums
  std::int64_t states = 0;     ///< bridging: residual states and their cotangents, between blocks and between branches
  std::int64_t rows = 0;       ///< streamed ones, to the ranks that train on them; a mean over steps and ranks
  std::int64_t figures = 0;    ///< norms, losses and the stop flag
  std::int64_t total() const { return gradients + weights + states + rows + figures; }
};

/// How the sums of a group travel: by the plans of pairwise_plan.h, or round a ring, as NCCL's own are counted here.
enum class SumPath : std::uint8_t { kPairwise, kRing };

StepTraffic local_traffic(const RunOptions& options, const RunShape& shape, const ProcessGrid& grid, int rank,
                          SumPath path = SumPath::kPairwise);

/// One step's leaves, in their order, and its cutoffs.
struct BridgingSample {
  std::vector<int> cutoffs;
  std::vector<std::int64_t> leaf_tokens;
};
StepTraffic bridging_traffic(const RunOptions& options, const BridgingShape& shape, const ProcessGrid& grid, int rank,
                             const BridgingSample& step, SumPath path = SumPath::kPairwise);

}  // namespace tadapt

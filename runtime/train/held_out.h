// Held-out figures of the local objective, over rows that are never trained on.
#pragma once

#include <vector>

#include "data/row_reader.h"
#include "runtime/comm/communicator.h"
#include "runtime/comm/process_grid.h"
#include "runtime/train/metrics.h"
#include "runtime/train/trainee.h"

namespace tadapt {

/// Rows [begin, end), in pieces that the ranks of a data-parallel group share.
class HeldOut {
 public:
  struct Rows {
    std::int64_t begin = 0;
    std::int64_t end = 0;
  };
  HeldOut(const RowReader& reader, Communicator& world, const ProcessGrid& grid, Rows rows, std::int64_t piece_tokens);

  /// Figures of every trained layer in grid.layers() order, the same on every rank and for every grid; empty when no
  /// rows are held out. Adapters must be prepared. Collective.
  std::vector<HeldOutMetrics> evaluate(Context& context, LocalLossPass& pass, const std::vector<Trainee>& trainees);

 private:
  std::int64_t pieces() const { return (rows_.end - rows_.begin + piece_tokens_ - 1) / piece_tokens_; }

  const RowReader& reader_;
  Communicator& world_;
  const ProcessGrid& grid_;
  Rows rows_;
  std::int64_t piece_tokens_;  ///< at most what the pass was made for
};

}  // namespace tadapt

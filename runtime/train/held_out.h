// Held-out figures of the local objective, over rows that are never trained on.
#pragma once

#include <vector>

#include "data/row_reader.h"
#include "runtime/comm/communicator.h"
#include "runtime/comm/process_grid.h"
#include "runtime/train/metrics.h"
#include "runtime/train/row_pieces.h"
#include "runtime/train/trainee.h"

namespace tadapt {

/// Pieces of rows that the ranks of a data-parallel group share; each reads its own only.
class HeldOut {
 public:
  /// Pieces have at most as many rows as the pass was made for.
  HeldOut(const RowReader& reader, Communicator& world, const ProcessGrid& grid, RowPieces pieces);

  /// "nmse" (Σ‖Δ−T(x)‖² / Σ‖Δ‖²) and "l0" of all trainees, the layers in grid.layers() order and of each layer its
  /// runs, the same on every rank and for every grid; empty when no rows are held out. Adapters must be prepared.
  /// Collective.
  std::vector<Figures> evaluate(Context& context, LocalLossPass& pass, const std::vector<Trainee>& trainees);

 private:
  const RowReader& reader_;
  Communicator& world_;
  const ProcessGrid& grid_;
  RowPieces pieces_;
};

}  // namespace tadapt

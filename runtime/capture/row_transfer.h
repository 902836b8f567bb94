// RowTransfer: rows made where a context computes, on their way to host memory while it goes on computing.
#pragma once

#include <vector>

#include "kernels/core/event.h"

namespace tadapt {

/// On the CPU rows are made in their place. On a GPU they are made in one of a few buffers in turn, and a second line
/// of work copies them from there.
class RowTransfer {
 public:
  /// The context must outlive the transfer.
  explicit RowTransfer(Context& context);

  /// Where to make rows [R, D] float32 that belong into `destination`, pinned host memory. The last four of them stay
  /// readable. Allocates only when earlier rows were fewer.
  Tensor begin(const Tensor& destination);
  /// Sends what begin() gave, made by all that the context was asked for so far.
  void send();
  /// Returns when all that was sent is there.
  void finish();

 private:
  struct Stage {
    Buffer rows;
    Event copied;
  };

  Context& context_;
  Context copying_;
  Event made_;
  std::vector<Stage> stages_;
  std::size_t current_ = 0;
  Tensor rows_, destination_;  // of the last begin()
};

}  // namespace tadapt

// GridLink: states and cotangents between the ranks of a leaf, over a communicator.
#pragma once

#include "runtime/comm/communicator.h"
#include "runtime/comm/process_grid.h"
#include "runtime/loss/stage_link.h"
#include "runtime/train/stall_clock.h"

namespace tadapt {

class GridLink : public StageLink {
 public:
  /// `world`: all ranks of the grid. Values of a device travel through host memory.
  GridLink(Context& context, Communicator& world, const ProcessGrid& grid)
      : context_(context), world_(world), grid_(grid) {}

  void send(const Tensor& values, Neighbour to) override;
  void receive(const Tensor& values, Neighbour from) override;
  /// What sending and receiving took in all.
  double stall_seconds() const { return stall_.seconds(); }

 private:
  int rank_of(Neighbour neighbour) const;

  Context& context_;
  Communicator& world_;
  const ProcessGrid& grid_;
  Buffer host_;
  StallClock stall_;
};

}  // namespace tadapt

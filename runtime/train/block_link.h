// BlockLink: states and cotangents between the ranks of neighbouring layer blocks, over a communicator.
#pragma once

#include "runtime/comm/communicator.h"
#include "runtime/loss/stage_link.h"

namespace tadapt {

class BlockLink : public StageLink {
 public:
  /// `chain`: one rank of each block, in the blocks' order. Values of a device travel through host memory.
  BlockLink(Context& context, Communicator& chain) : context_(context), chain_(chain) {}

  void send(const Tensor& values, Neighbour to) override;
  void receive(const Tensor& values, Neighbour from) override;

 private:
  int rank_of(Neighbour neighbour) const { return chain_.rank() + (neighbour == Neighbour::kBefore ? -1 : 1); }

  Context& context_;
  Communicator& chain_;
  Buffer host_;
};

}  // namespace tadapt

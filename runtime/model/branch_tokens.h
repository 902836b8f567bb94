// BranchTokens: one batch of sequences several times over, for branches of the model that run side by side.
#pragma once

#include "runtime/model/token_tensors.h"

namespace tadapt {

/// Branch b of a batch of T tokens owns rows [b·T, (b + 1)·T): the same sequences in each.
class BranchTokens {
 public:
  /// Repeats `batch`, which need not live on, for up to `branches` branches.
  void place(Context& context, const TokenBatch& batch, int branches);

  std::int64_t tokens() const { return tokens_; }  ///< T
  int sequences() const { return sequences_; }     ///< of one branch
  /// The first `branches` branches; valid until the next place().
  TokenTensors of(int branches) const;

 private:
  TokenBatch repeated_;
  TokenMemory memory_;
  Tensor ids_, positions_, offsets_;
  std::int64_t tokens_ = 0;
  int sequences_ = 0;
};

}  // namespace tadapt

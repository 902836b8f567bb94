// TokenTensors: the numbers of a batch as ops take them, where a context computes.
#pragma once

#include "kernels/core/context.h"
#include "runtime/model/token_batch.h"

namespace tadapt {

struct TokenTensors {
  const TokenBatch& batch;
  Tensor ids;        ///< [T] int32
  Tensor positions;  ///< [T] int32
  Tensor offsets;    ///< [B + 1] int32, on the host wherever the others are
};

/// Device memory for the numbers of one batch after another. Stays empty on the CPU.
class TokenMemory {
 public:
  /// Views of the batch itself on the CPU, copies that last until the next call on a GPU: there it waits until they are
  /// made, and allocates when no earlier batch was as large. The batch must not change while they are in use.
  TokenTensors place(Context& context, const TokenBatch& batch);

 private:
  Buffer memory_;
};

}  // namespace tadapt

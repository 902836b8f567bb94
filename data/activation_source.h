// ActivationSource: whatever hands a rank its rows, batch after batch.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/core/tensor.h"

namespace tadapt {

/// This rank's part of one batch.
struct ActivationBatch {
  struct Layer {
    Tensor x;      ///< [slice rows, D], bfloat16 or float32
    Tensor delta;  ///< the same
  };
  std::int64_t first_sample = 0;  ///< sample number of row 0; row i is sample first_sample + i
  std::vector<Layer> layers;      ///< one per layer this rank trains
};

/// Hands out batch after batch, without end; batches may span windows and epochs. What a batch holds is a function of
/// data order and slice alone.
class ActivationSource {
 public:
  virtual ~ActivationSource() = default;
  /// The next batch; its memory stays valid until the following call.
  virtual const ActivationBatch& next() = 0;
  /// Seconds that next() has kept its caller waiting so far.
  virtual double stall_seconds() const = 0;
};

}  // namespace tadapt

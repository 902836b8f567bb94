// TrainedBranch: what adds to MLPs' outputs and has gradients, as a recorded pass meets it.
#pragma once

#include "kernels/core/context.h"

namespace tadapt {

/// Where in a recorded pass: one layer of one branch of the model. A pass meets each place once forwards, then at most
/// once backwards, the later layers first and within a layer the later branches first.
struct BranchPlace {
  int layer = 0;
  int branch = 0;
};

class TrainedBranch {
 public:
  virtual ~TrainedBranch() = default;
  /// Whether it adds anything at this layer.
  virtual bool has(int layer) const = 0;
  /// mlp_out [T, D] += its output at mlp_in [T, D], both float32; remembers what backward() of the same place needs.
  virtual void record_output(Context& context, BranchPlace place, const Tensor& mlp_in, const Tensor& mlp_out) = 0;
  /// Takes dL/d(its output) [T, D], which is read only, and adds dL/dmlp_in to `gradient` [T, D], or to nothing when
  /// that is Tensor{}. mlp_in: as recorded.
  virtual void backward(Context& context, BranchPlace place, const Tensor& mlp_in, const Tensor& cotangent,
                        const Tensor& gradient) = 0;
};

}  // namespace tadapt

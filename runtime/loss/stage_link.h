// StageLink: how a rank that runs a part of the layers or branches hears from those that run the rest.
#pragma once

#include "kernels/core/context.h"
#include "runtime/model/decoder_weights.h"

namespace tadapt {

/// The rank of the layers before this rank's, that of those behind, or that of the other branches of the same layers.
enum class Neighbour : std::uint8_t { kBefore, kBehind, kOtherSide };

class StageLink {
 public:
  virtual ~StageLink() = default;
  /// Sends float32 values, and returns when their memory may change. In the order of the calls.
  virtual void send(const Tensor& values, Neighbour to) = 0;
  /// Waits for as many values.
  virtual void receive(const Tensor& values, Neighbour from) = 0;
};

}  // namespace tadapt

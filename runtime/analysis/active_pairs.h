// ActivePairs: the active (feature, token) pairs of a batch, brought to the host by feature.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/core/context.h"

namespace tadapt {

/// Pairs of feature i are [offsets[i], offsets[i + 1]).
struct FeaturePairs {
  std::span<const std::int32_t> offsets;  ///< [F + 1]
  std::span<const std::int32_t> rows;     ///< [P]: tokens of the batch, ascending within a feature
  std::span<const float> activations;     ///< [P], > 0 (or NaN)
};

/// Memory for the pairs of one batch after another.
class ActivePairs {
 public:
  /// The pairs of activations [T, F] float32, at least 0, where the context computes; there until the next call. Only
  /// they leave a device.
  FeaturePairs gather(Context& context, const Tensor& activations);

 private:
  Buffer token_offsets_, feature_offsets_, features_, values_, tokens_, places_;  // where the context computes
  std::vector<std::int32_t> offsets_, rows_, order_;
  std::vector<float> by_token_, activations_;
};

}  // namespace tadapt

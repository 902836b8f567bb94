// Active (token, feature) pairs of [T, F] activations, by token and by feature: views, the memory is somebody else's.
#pragma once

#include "kernels/core/tensor.h"

namespace tadapt {

/// The P pairs with a_ti > 0 in rows of tokens (CSR): those of token t are [offsets[t], offsets[t + 1]).
struct SparseFeatures {
  Tensor offsets;      ///< [T + 1] int32
  Tensor features;     ///< [P] int32, ascending within a token
  Tensor activations;  ///< [P] float32, > 0
};

/// The same pairs in rows of features: those of feature i are [offsets[i], offsets[i + 1]).
struct FeatureMajorPairs {
  Tensor offsets;  ///< [F + 1] int32
  Tensor tokens;   ///< [P] int32, ascending within a feature
  Tensor pairs;    ///< [P] int32: place of the pair in SparseFeatures
};

}  // namespace tadapt

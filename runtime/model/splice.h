// Splice: what stands in each layer's MLP place, out of the same frozen weights.
#pragma once

#include <vector>

#include "runtime/model/decoder.h"

namespace tadapt {

/// Something that adds to an MLP's output, such as a trained adapter (whole, or with features scaled or removed).
class AdapterBranch {
 public:
  virtual ~AdapterBranch() = default;
  /// mlp_out [T, D] += the branch of `layer` at mlp_in [T, D], both float32; a row of it may depend on its own input,
  /// token and position only.
  virtual void add_output(Context& context, int layer, const TokenBatch& batch, const Tensor& mlp_in,
                          const Tensor& mlp_out) = 0;
};

struct LayerSplice {
  MlpSource mlp = MlpSource::kTarget;
  AdapterBranch* adapter = nullptr;  ///< none; must outlive the runs of the splice
};

using Splice = std::vector<LayerSplice>;  ///< one entry per layer of the model

/// The same entry in every layer: {kTarget} is the target itself, {kBase} the hybrid, {kBase, &adapters} the adapter
/// model.
inline Splice uniform_splice(int layers, LayerSplice entry) { return Splice(static_cast<std::size_t>(layers), entry); }

}  // namespace tadapt

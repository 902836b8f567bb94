// HybridWeights: the target's tensors with the base's MLPs in some layers, so that one decoder holds no MLP twice.
#pragma once

#include <map>
#include <vector>

#include "runtime/model/decoder_config.h"
#include "runtime/model/weight_source.h"

namespace tadapt {

/// A model's sizes and names, and where its tensors are.
struct ModelTensors {
  const DecoderConfig& config;
  const WeightSource& weights;
};

class HybridWeights : public WeightSource {
 public:
  /// Reads under the target's names; MLPs of `layers` are the base's. Both sources must outlive it. ConfigError unless
  /// the base's MLPs can stand in the target's layers.
  HybridWeights(const ModelTensors& target, const ModelTensors& base, const std::vector<int>& layers);
  void read(Context& context, const std::string& name, const Shape& shape, const Use& use) const override;

 private:
  const WeightSource& target_;
  const WeightSource& base_;
  std::map<std::string, std::string> of_base_;  ///< the target's name of a tensor -> the base's
};

}  // namespace tadapt

// AttributionModel: the adapter model as attribution runs it: forwards, and backwards through what is not an adapter.
#pragma once

#include <map>
#include <optional>

#include "kernels/core/memory.h"
#include "runtime/eval/adapter_set.h"
#include "runtime/model/decoder.h"

namespace tadapt {

/// Everything in float32. Layers without an adapter run the target's own MLP and have no features.
class AttributionModel {
 public:
  /// An adapter's tensors as attribution reads them.
  struct Features {
    Tensor encoder;                       ///< [F, D]
    Tensor decoder;                       ///< [F, D]: a row per feature
    Tensor decoder_bias;                  ///< [1, D]
    std::span<const float> encoder_bias;  ///< [F], on the host
    std::int64_t count() const { return encoder.size(0); }
  };

  /// `hybrid`: the target with the base's MLPs in the bundle's layers (HybridWeights), loaded for both directions.
  AttributionModel(Context& context, Decoder hybrid, AdapterBundle bundle);

  const Decoder& decoder() const { return decoder_; }
  AdapterSet& adapters() { return adapters_; }
  /// Of a layer; null where it has no adapter.
  const Features* features(int layer) const;
  std::int64_t most_features() const;

  /// Bytes that it keeps where it computes, of such a model and adapters.
  static std::int64_t bytes(const DecoderConfig& config, const std::vector<AdapterShape>& adapters, Device device);

 private:
  Decoder decoder_;
  AdapterBundle bundle_;
  AdapterSet adapters_;
  std::map<int, DeviceView> masters_;
  std::map<int, Features> features_;
};

}  // namespace tadapt

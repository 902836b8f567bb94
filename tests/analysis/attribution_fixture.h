// Adapter models for attribution tests: the tiny pair of tests/golden/bridging, and random ones of any shape.
#pragma once

#include <optional>

#include "data/safetensors.h"
#include "runtime/analysis/attribution_graph.h"
#include "runtime/model/hybrid_weights.h"
#include "tests/eval/random_bundle.h"
#include "tests/support/devices.h"
#include "tests/support/temporary_directory.h"
#include "tests/support/tiny_models.h"

namespace tadapt::testing {

inline std::vector<int> layers_of(const AdapterBundle& bundle) {
  std::vector<int> layers;
  for (const AdapterBundle::Layer& layer : bundle.layers) layers.push_back(layer.layer);
  return layers;
}

inline AttributionModel attribution_model(Context& context, const std::filesystem::path& target,
                                          const std::filesystem::path& base, AdapterBundle bundle) {
  RealFileSystem files;
  const ModelFiles target_files(target), base_files(base);
  const FileWeights target_weights(target_files), base_weights(base_files);
  const DecoderConfig config = load_decoder_config(files, target), base_config = load_decoder_config(files, base);
  const HybridWeights hybrid({config, target_weights}, {base_config, base_weights}, layers_of(bundle));
  Decoder decoder = Decoder::make(context, config, hybrid, {DType::kFloat32, Directions::kBoth});
  return AttributionModel(context, std::move(decoder), std::move(bundle));
}

/// A model and what passes over it need.
class AttributionFixture {
 public:
  AttributionFixture(Device device, const std::filesystem::path& target, const std::filesystem::path& base,
                     AdapterBundle bundle, int threads = 1)
      : context_(context_on(device, threads)),
        model_(attribution_model(context_, target, base, std::move(bundle))),
        memory_(device) {}

  Context& context() { return context_; }
  AttributionModel& model() { return model_; }
  PromptMemory& memory() { return memory_; }
  PromptRecord record(std::span<const std::int32_t> ids) { return PromptRecord(context_, model_, memory_, ids); }
  AttributionPass pass(const PromptRecord& record) { return AttributionPass(context_, model_, memory_, record); }

 private:
  Context context_;
  AttributionModel model_;
  PromptMemory memory_;
};

/// Every active feature and every chosen logit, later layers first.
inline std::vector<AttributionTarget> all_targets(const PromptRecord& record, const LogitChoice& choice = {}) {
  std::vector<AttributionTarget> targets = record.logit_targets(choice);
  for (int layer = static_cast<int>(record.layers().size()); layer-- > 0;)
    for (std::int32_t pair = 0; pair < record.layers()[static_cast<std::size_t>(layer)].pairs(); ++pair)
      targets.push_back(record.feature_target(layer, pair));
  return targets;
}

inline void nothing() {}

}  // namespace tadapt::testing

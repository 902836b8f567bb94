// Adapters with random weights, for tests that need some and not their quality.
#pragma once

#include <algorithm>

#include "runtime/bundle/adapter_bundle.h"
#include "tests/support/tiny_models.h"

namespace tadapt::testing {

/// Transcoders of these layers with masters uniform in ±spread.
inline AdapterBundle random_bundle(const std::vector<int>& layers, AdapterShape shape, float spread) {
  AdapterBundle made;
  made.type = "transcoder";
  for (const int layer : layers) {
    made.layers.push_back(zero_layer(made.type, layer, shape));
    const ParameterTensors masters = made.layers.back().store->master_views(0);
    std::uint64_t number = static_cast<std::uint64_t>(layer) * 10;
    for (const auto& [name, tensor] : masters.entries()) {
      const Buffer random = random_tensor(tensor.shape(), 0.0f, spread, 9, number++);
      std::ranges::copy(random.span<float>(), tensor.span<float>().begin());
    }
  }
  return made;
}

}  // namespace tadapt::testing

// Feature files as circuit-tracer's front-end reads them.
#pragma once

#include <filesystem>

#include "runtime/analysis/feature_store.h"
#include "runtime/train/run_environment.h"

namespace tadapt {

enum class CircuitTracerFiles : std::uint8_t {
  kPacked,  ///< features/layer_ℓ.bin and features/index.json.gz
  kJson,    ///< features/{cantor}.json, one for each feature that is not dead
};

/// (layer + feature)(layer + feature + 1)/2 + feature: circuit-tracer's number of a feature.
std::int64_t cantor(std::int64_t layer, std::int64_t feature);

/// Writes the features of `store` below `out`, and feature_metadata.json: totals, densities and shares by domain,
/// region and tenth of the thinking. A packed file is, for every feature, [uint32 little-endian: bytes][gzip of its
/// JSON], nothing for a dead one; the index says where each begins. Ranks share the layers. Collective.
void export_circuit_tracer(const FeatureStore& store, CircuitTracerFiles kind, const std::filesystem::path& out,
                           const RunEnvironment& environment);

}  // namespace tadapt

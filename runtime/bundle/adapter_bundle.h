// AdapterBundle: trained adapters of several layers in memory, and whether they fit a pair of models.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "data/file.h"
#include "runtime/adapter/adapter.h"
#include "runtime/model/decoder.h"

namespace tadapt {

/// File in a run directory that holds the options it was made with.
inline constexpr char kRunFile[] = "run.json";

/// Adapters of one run as they lie on disk: masters of each layer, and where they came from.
struct AdapterBundle {
  struct Layer {
    int layer = 0;
    AdapterShape shape;
    std::unique_ptr<ParameterStore> store;  ///< one group
  };
  std::string type;           ///< of the adapter table
  std::vector<Layer> layers;  ///< ascending; a layer that is not here runs the target's own MLP
  std::string source;         ///< "checkpoint …/step-000000200" or "export …"
  std::int64_t step = 0;
  MlpSource beside = MlpSource::kBase;  ///< the MLPs that the adapters run beside
  std::string edits = {};               ///< what was changed after training, in words; empty: nothing
  std::string base_fingerprint = {}, target_fingerprint = {};  ///< empty when unknown (a foreign checkpoint)
};

/// A layer with zeroed masters of this shape.
AdapterBundle::Layer zero_layer(const std::string& type, int layer, const AdapterShape& shape);

/// Reads a run directory (its newest checkpoint that verifies), one checkpoint, an export or a directory that the
/// authors' code has written. Rejected checkpoints are told to `warn`. MissingInputError when there are no adapters,
/// DataError when they are damaged, NonFiniteError naming layer and tensor when a number is not finite.
AdapterBundle load_adapters(FileSystem& files, const std::filesystem::path& path,
                            const std::function<void(const std::string&)>& warn);

/// ConfigError naming what differs unless the adapters were trained for these two models, as far as the bundle knows
/// (fingerprints), and their layers and widths are the models'.
void require_models_fit(FileSystem& files, const AdapterBundle& bundle, const std::filesystem::path& base,
                        const std::filesystem::path& target);

}  // namespace tadapt

// AdapterSet: trained adapters of several layers, loaded from wherever they were saved, as a branch of the model.
#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "data/file.h"
#include "runtime/adapter/adapter.h"
#include "runtime/model/splice.h"

namespace tadapt {

/// Adapters of one run as they lie on disk: masters of each layer, and where they came from.
struct AdapterBundle {
  struct Layer {
    int layer = 0;
    AdapterShape shape;
    std::unique_ptr<ParameterStore> store;  ///< one group
  };
  std::string type;           ///< of the adapter table
  std::vector<Layer> layers;  ///< ascending
  std::string source;         ///< "checkpoint …/step-000000200" or "export …"
  std::int64_t step = 0;
  std::string base_fingerprint, target_fingerprint;  ///< empty when unknown (a foreign checkpoint)
};

/// Reads a run directory (its newest checkpoint that verifies), one checkpoint, an adapters-only export or a directory
/// in the authors' layout. Rejected checkpoints are told to `warn`. DataError or MissingInputError otherwise.
AdapterBundle load_adapters(FileSystem& files, const std::filesystem::path& path,
                            const std::function<void(const std::string&)>& warn);

/// Ready-to-run adapters.
class AdapterSet : public AdapterBranch {
 public:
  /// Activations of one layer, [T,F] fp32, as the model runs; gone when the listener returns.
  using Listener = std::function<void(int layer, const TokenBatch& batch, const Tensor& activations)>;

  AdapterSet(Context& context, const AdapterBundle& bundle, DType compute);

  bool has(int layer) const { return adapters_.contains(layer); }
  std::vector<int> layers() const;
  const AdapterShape& shape(int layer) const { return adapters_.at(layer)->shape(); }
  void listen(Listener listener) { listener_ = std::move(listener); }

  void add_output(Context& context, int layer, const TokenBatch& batch, const Tensor& mlp_in,
                  const Tensor& mlp_out) override;
  /// T(x) of one layer alone; valid until the next call.
  Tensor output(Context& context, int layer, const Tensor& mlp_in);

 private:
  std::map<int, std::unique_ptr<Adapter>> adapters_;
  Buffer activations_, output_;
  Listener listener_;
  Tensor last_activations_;
};

}  // namespace tadapt

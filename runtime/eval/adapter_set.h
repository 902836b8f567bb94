// AdapterSet: trained adapters of several layers as a branch of the model.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <vector>

#include "runtime/bundle/adapter_bundle.h"
#include "runtime/model/splice.h"

namespace tadapt {

/// Ready-to-run adapters, on the device of the context they are made with.
class AdapterSet : public AdapterBranch {
 public:
  /// Activations of one layer, [T,F] fp32, as the model runs; gone when the listener returns.
  using Listener = std::function<void(int layer, const TokenBatch& batch, const Tensor& activations)>;

  AdapterSet(Context& context, const AdapterBundle& bundle, DType compute);

  bool has(int layer) const { return adapters_.contains(layer); }
  std::vector<int> layers() const;
  /// Of a model of so many layers: those of [begin, end) that have an adapter run it and the MLP it is beside, others
  /// the target's own MLP.
  Splice splice(int layers, int begin, int end);
  const AdapterShape& shape(int layer) const { return adapters_.at(layer)->shape(); }
  void listen(Listener listener) { listener_ = std::move(listener); }

  void add_output(Context& context, int layer, const TokenBatch& batch, const Tensor& mlp_in,
                  const Tensor& mlp_out) override;
  /// T(x) of one layer alone; valid until the next call.
  Tensor output(Context& context, int layer, const Tensor& mlp_in);

 private:
  MlpSource beside_;
  std::map<int, std::unique_ptr<Adapter>> adapters_;
  Buffer activations_, output_;
  Listener listener_;
  Tensor last_activations_;
};

}  // namespace tadapt

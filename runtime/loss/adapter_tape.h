// AdapterTape: adapters being trained, as the branches of one recorded pass, and the gradients that pass leaves.
#pragma once

#include <functional>
#include <map>
#include <vector>

#include "runtime/adapter/adapter.h"
#include "runtime/model/trained_branch.h"

namespace tadapt {

/// One adapter of the model, trained under its index in a list.
struct TapedAdapter {
  int layer = 0;
  Adapter* adapter = nullptr;  ///< with AdapterGradients::kInputs
  ParameterTensors masters;
  const ParameterGroup* group = nullptr;
};

/// Whether the activations of a forward pass are kept for the backward or computed again there.
enum class FeatureMemory : std::uint8_t { kKept, kRecomputed };

/// Branch 0 is the adapter model itself: its activations are what the sparsity term and the statistics count. Other
/// branches run the same adapters at other inputs. An adapter's gradient is that of the branches' cotangents together:
/// those of the others added first, the last branch's before the one before it, then branch 0's. Where another rank
/// runs some of the branches, its gradient and this one's are to be added.
class AdapterTape : public TrainedBranch {
 public:
  struct Limits {
    std::int64_t tokens = 0;  ///< of one branch
    int branches = 1;
    int first_branch = 0;  ///< of those that run here; it runs wherever another one does
    FeatureMemory memory = FeatureMemory::kKept;
  };
  AdapterTape(Device device, std::vector<TapedAdapter> adapters, const Limits& limits);

  /// What one leaf's gradients are made of and where they go.
  struct Leaf {
    float sparsity = 0.0f;                          ///< factor of Σ_t Σ_i a_ti ‖W_dec,i‖₂, of every adapter
    std::function<Tensor(std::size_t index)> slot;  ///< laid out as the adapter's group; overwritten
    std::function<void(std::size_t index)> filled;  ///< the slot is; each adapter, once, the last layer's first
    Tensor weighted_activations;  ///< [adapters] float64: Σ_t Σ_i a_ti ‖W_dec,i‖₂ of branch 0, 0 without it
  };
  /// Forgets the leaf before.
  void begin(Leaf leaf);
  /// All branches are back: slots of adapters that did not run become 0.
  void finish(Context& context);

  std::int64_t size() const { return static_cast<std::int64_t>(adapters_.size()); }
  bool has(int layer) const override { return places_.contains(layer); }
  void record_output(Context& context, BranchPlace place, const Tensor& mlp_in, const Tensor& mlp_out) override;
  void backward(Context& context, BranchPlace place, const Tensor& mlp_in, const Tensor& cotangent,
                const Tensor& gradient) override;

  /// Bytes that one keeps for adapters of this shape.
  static std::int64_t bytes(const AdapterShape& shape, double sparse_below, std::int64_t adapters,
                            const Limits& limits);

 private:
  FeatureRecord& record(std::size_t index, int branch);
  void run(Context& context, std::size_t index, int branch, const Tensor& mlp_in);

  std::vector<TapedAdapter> adapters_;
  std::map<int, std::size_t> places_;  // layer -> index
  Limits limits_;
  std::vector<FeatureRecord> records_;  // by adapter and branch, or one for all
  AdapterScratch scratch_;
  Buffer output_;          // [T, D]
  Buffer partial_;         // a branch's gradient on its way into the slot
  Buffer other_weighted_;  // [1] what other branches than 0 would have counted
  std::vector<bool> begun_;
  Leaf leaf_;
};

}  // namespace tadapt

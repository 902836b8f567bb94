// Adapter: the trainable branch beside one layer's MLP, as an interface, and the table of its kinds.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "kernels/core/context.h"
#include "runtime/adapter/feature_record.h"
#include "runtime/parameters/parameter_store.h"

namespace tadapt {

struct AdapterShape {
  std::int64_t model_width = 0;  ///< D
  std::int64_t features = 0;     ///< F, the dictionary size
};

/// Which gradients an adapter will be asked for.
enum class AdapterGradients : std::uint8_t {
  kNone,        ///< it runs forwards only
  kParameters,  ///< of its parameters: every layer by itself
  kInputs,      ///< also of what it reads: it is trained inside a model
};

/// How an adapter computes.
struct AdapterCompute {
  DType dtype = DType::kBFloat16;  ///< operands of products: bfloat16 or float32; masters are always fp32
  double sparse_below = 0.0;       ///< active features per token below which training takes the sparse route; 0: never
  AdapterGradients gradients = AdapterGradients::kParameters;
};

/// An adapter binds to tensors by name, all on its contexts' device; it owns its shape, its compute type and the packed
/// working copies of its weights, and knows neither where the masters live nor the optimiser nor the loss.
class Adapter {
 public:
  virtual ~Adapter() = default;
  virtual const AdapterShape& shape() const = 0;
  virtual const AdapterCompute& compute() const = 0;
  /// The tensors it trains and the statistics it counts, as a group called `name`.
  virtual ParameterGroupSpec parameters(std::string name) const = 0;
  /// Fills zeroed masters with the starting point: a function of (seed, layer) alone, equal to the hybrid model.
  virtual void initialise(Context& context, const ParameterTensors& masters, std::uint64_t seed, int layer) const = 0;
  /// Takes over changed masters (packs working copies). Before the first forward and after every optimiser step.
  virtual void prepare(Context& context, const ParameterTensors& masters) = 0;
  /// activations [T,F] and output [T,D] (both fp32, overwritten) of x [T,D] (fp32 or bf16). A row depends on its own
  /// input alone, whatever the other rows are.
  virtual void forward(Context& context, const Tensor& x, const Tensor& activations, const Tensor& output) const = 0;
  /// The same for training on one leaf of tokens, by the route that suits the leaf; `record` keeps what backward needs.
  virtual void forward(Context& context, const Tensor& x, const ParameterTensors& masters, FeatureRecord& record,
                       const Tensor& output) const = 0;
  /// Gradients (overwritten) of  Σ_t ⟨cotangent_t, T(x_t)⟩ + sparsity · Σ_t Σ_i a_ti ‖W_dec,i‖₂  over one leaf of
  /// tokens, and its statistics. `record` is the forward's of the same x, and is used up.
  struct BackwardArguments {
    const Tensor& x;
    FeatureRecord& record;
    AdapterScratch& scratch;
    const Tensor& cotangent;  ///< [T,D] fp32, read only
    float sparsity = 0.0f;
    const ParameterTensors& masters;
    const ParameterTensors& gradients;
    const ParameterTensors& statistics;
    const Tensor& weighted_activations;  ///< [1] float64, overwritten: Σ_t Σ_i a_ti ‖W_dec,i‖₂ over the leaf
    /// [T,D] fp32, accumulated into: the gradient of x; Tensor{}: not asked for. Needs AdapterGradients::kInputs.
    const Tensor& input_gradient;
  };
  virtual void backward(Context& context, const BackwardArguments& arguments) = 0;
};

/// Name of the statistic every adapter counts: [F], on how many tokens each feature was active. Kept as fp32 so that
/// it travels with the gradients; exact below 2^24 tokens per batch.
inline constexpr char kActiveCounts[] = "active_counts";

/// A new adapter of a kind in the table ("transcoder"); ConfigError that lists the kinds when there is none.
std::unique_ptr<Adapter> make_adapter(const std::string& type, const AdapterShape& shape,
                                      const AdapterCompute& compute);
/// The kinds make_adapter knows.
std::vector<std::string> adapter_types();

}  // namespace tadapt

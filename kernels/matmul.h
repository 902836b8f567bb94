// Matrix products whose every row depends on that row and the weights alone, and gradients of weights.
#pragma once

#include <memory>
#include <string>

#include "kernels/core/backends.h"

namespace tadapt {

/// How weights of N outputs and K inputs lie in memory.
enum class Layout : std::uint8_t {
  kOutputInput,  ///< [N, K]: a row per output (PyTorch's Linear)
  kInputOutput,  ///< [K, N]: a row per input
};
/// What packed weights are for: products x · Wᵀ alone, or also cotangent · W, which gives the gradient of x.
enum class Directions : std::uint8_t { kForward, kBoth };

/// Bytes that packed weights take for each of their numbers: on the CPU a copy for each direction, in bf16 only where
/// the processor multiplies it; on a GPU one copy serves both.
std::size_t packed_bytes_per_number(Device device, DType compute, Directions directions);
/// What happens to a product before it is stored.
enum class Epilogue : std::uint8_t { kNone, kRelu };

TADAPT_BACKENDS(std::string product_library();)

/// The library behind the products and its version, as checkpoints record it: "oneDNN 2.6.3".
std::string product_library(Device device);

/// Weights rearranged once for the backend's products. Owns its copy; move-only; an empty one holds nothing.
class PackedWeights {
 public:
  /// What every backend keeps; it may add to it.
  struct Impl {
    std::int64_t outputs, inputs;
    DType compute, given;  ///< of the products; of the weights that were packed
    Layout layout;
    Directions directions;
    Buffer packed;
    virtual ~Impl() = default;
  };

  PackedWeights() = default;
  explicit PackedWeights(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

  bool empty() const { return impl_ == nullptr; }
  std::int64_t outputs() const { return impl_->outputs; }  ///< N
  std::int64_t inputs() const { return impl_->inputs; }    ///< K
  DType dtype() const { return impl_->compute; }           ///< the compute type: float32 or bfloat16
  DType given() const { return impl_->given; }             ///< of the tensors that repack_weights takes
  Layout layout() const { return impl_->layout; }          ///< the same
  Directions directions() const { return impl_->directions; }
  std::size_t bytes() const { return impl_->packed.bytes(); }  ///< of a direction, padding included
  Impl& impl() const { return *impl_; }

 private:
  std::unique_ptr<Impl> impl_;
};

TADAPT_BACKENDS(PackedWeights pack_weights(Context& context, const Tensor& weights, Layout layout, DType compute,
                                           Directions directions);
                void repack_weights(Context& context, const Tensor& weights, PackedWeights& packed);
                void matmul(Context& context, const Tensor& x, const PackedWeights& weights, const Tensor& bias,
                            Epilogue epilogue, const Tensor& y);
                void matmul_backward(Context& context, const Tensor& cotangent, const PackedWeights& weights,
                                     const Tensor& gradient);
                void weight_gradient(Context& context, const Tensor& left, const Tensor& right, DType compute,
                                     const Tensor& gradient);)

/// Packs weights for `matmul`, and for `matmul_backward` where both directions are asked for: the CPU then holds a
/// second packed copy, a GPU the same one.
///   weights  [N, K] or [K, N] by `layout`; float32, bfloat16 or float16; read only
///   compute  kFloat32 or kBFloat16 (weights rounded to nearest even; products accumulate in fp32)
/// Costs about one pass over the weights plus the making of the primitives. Throws ShapeError when N or K is 0.
PackedWeights pack_weights(Context& context, const Tensor& weights, Layout layout, DType compute,
                           Directions directions = Directions::kForward);

/// Puts new numbers into packed weights, in place, allocating nothing.
///   weights  dtype-, shape- and layout-wise as in the pack_weights that made `packed`; read only
void repack_weights(Context& context, const Tensor& weights, PackedWeights& packed);

/// y = epilogue(x · Wᵀ + bias)
///   x        [T, K] float32 or bfloat16; rounded to nearest even where the weights were packed for bfloat16; read only
///   weights  N outputs, K inputs
///   bias     [N] float32, or Tensor{} for none; read only
///   y        [T, N] float32, overwritten; must not overlap x
/// Accumulates in fp32. Rows run in tiles of a fixed height, outputs in panels of a fixed width (both functions of N
/// and K only), so a row of y has the same bits for any number of threads, any T, any position of the row. T = 0 is
/// fine. Oracle: a double loop over the rounded operands.
void matmul(Context& context, const Tensor& x, const PackedWeights& weights, const Tensor& bias, Epilogue epilogue,
            const Tensor& y);

/// gradient = cotangent · W: with y = x · Wᵀ and cotangent = dL/dy, that is dL/dx.
///   cotangent  [T, N] float32 or bfloat16; rounded as matmul rounds x; read only
///   weights    packed for both directions
///   gradient   [T, K] float32, overwritten; must not overlap cotangent
/// Sums and rows as matmul. Throws ShapeError when the weights were packed for one direction only.
void matmul_backward(Context& context, const Tensor& cotangent, const PackedWeights& weights, const Tensor& gradient);

/// gradient = leftᵀ · right, over the tokens of one leaf.
///   left      [T, N] float32 or bfloat16; read only
///   right     [T, K] float32 or bfloat16; read only
///   compute   kFloat32, or kBFloat16: both operands rounded to nearest even
///   gradient  [N, K] float32, overwritten (zero when T = 0)
/// Accumulates in fp32. Each fixed panel of the output is one single-threaded product over all T tokens: the bits
/// depend on left and right only, not on the number of threads. Oracle: a double loop over the rounded operands.
void weight_gradient(Context& context, const Tensor& left, const Tensor& right, DType compute, const Tensor& gradient);

}  // namespace tadapt

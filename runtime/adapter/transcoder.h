// Transcoder: the ReLU adapter of Hu et al., "Transcoder Adapters for Reasoning-Model Diffing" (arXiv 2602.20904).
#pragma once

#include "kernels/matmul.h"
#include "runtime/adapter/adapter.h"

namespace tadapt {

///   a = ReLU(W_enc x + b_enc)        W_enc [F,D], b_enc [F]; feature i is active iff a_i > 0
///   T(x) = W_dec a + b_dec           W_dec kept as [F,D]: row i is feature i's decoder vector; b_dec [D]
/// Starts as W_enc ~ U(±1/√D), everything else 0: T(x) = 0. Where W_dec,i = 0 the norm's subgradient is 0.
class Transcoder : public Adapter {
 public:
  Transcoder(const AdapterShape& shape, const AdapterCompute& compute);

  const AdapterShape& shape() const override { return shape_; }
  const AdapterCompute& compute() const override { return compute_; }
  ParameterGroupSpec parameters(std::string name) const override;
  void initialise(Context& context, const ParameterTensors& masters, std::uint64_t seed, int layer) const override;
  void prepare(Context& context, const ParameterTensors& masters) override;
  void forward(Context& context, const Tensor& x, const Tensor& activations, const Tensor& output) const override;
  void forward(Context& context, const Tensor& x, const ParameterTensors& masters, FeatureRecord& record,
               const Tensor& output) const override;
  void backward(Context& context, const BackwardArguments& arguments) override;

 private:
  void dense_gradients(Context& context, const BackwardArguments& arguments);
  void sparse_gradients(Context& context, const BackwardArguments& arguments);
  /// W_dec as the sparse ops read it: the rounded copy, or the masters themselves where nothing is rounded.
  Tensor decoder_rows(const ParameterTensors& masters) const;

  AdapterShape shape_;
  AdapterCompute compute_;
  PackedWeights encoder_;                                                 // x · W_encᵀ
  PackedWeights decoder_;                                                 // a · W_dec
  PackedWeights decoder_backward_;                                        // cotangent · W_decᵀ
  Buffer encoder_bias_, decoder_bias_, decoder_norms_, activation_sums_;  // made by prepare, where it runs
  Buffer decoder_rows_;                                                   // [F,D] in bf16, where both sparse and bf16
};

}  // namespace tadapt

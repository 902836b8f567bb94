#include "runtime/adapter/transcoder.h"

#include <cmath>

#include "kernels/core/memory.h"
#include "kernels/pointwise.h"
#include "kernels/uniform.h"
#include "runtime/adapter/grown.h"

namespace tadapt {
namespace {

/// x in `dtype`: itself, or rounded into `memory`.
Tensor in_dtype(Context& context, const Tensor& x, DType dtype, Buffer& memory) {
  if (dtype == DType::kFloat32 || x.dtype() == dtype) return x;
  const Tensor rounded = grown(context, memory, dtype, x.size(0), x.size(1));
  convert(context, x, rounded);
  return rounded;
}

}  // namespace

Transcoder::Transcoder(const AdapterShape& shape, const AdapterCompute& compute) : shape_(shape), compute_(compute) {
  if (shape.features < 1) throw ConfigError("adapter.features: expected at least 1, found {}", shape.features);
  require_shape(shape.model_width >= 1, "adapter for a model of width {}", shape.model_width);
}

ParameterGroupSpec Transcoder::parameters(std::string name) const {
  const auto [width, features] = shape_;
  return {std::move(name),
          {{"W_enc", {features, width}}, {"b_enc", {features}}, {"W_dec", {features, width}}, {"b_dec", {width}}},
          {{kActiveCounts, {features}}}};
}

void Transcoder::initialise(Context& context, const ParameterTensors& masters, std::uint64_t seed, int layer) const {
  const RandomStream random(seed, RandomPurpose::kInitialWeights, 0, static_cast<std::uint64_t>(layer));
  const float bound = 1.0f / std::sqrt(static_cast<float>(shape_.model_width));
  const Tensor encoder = masters["W_enc"];
  uniform(context, random, bound, encoder.reshaped({encoder.elements()}));
  for (const char* zero : {"b_enc", "W_dec", "b_dec"}) clear(context, masters[zero]);
}

void Transcoder::prepare(Context& context, const ParameterTensors& masters) {
  const auto pack = [&](const char* name, Layout layout, PackedWeights& packed) {
    if (packed.empty())
      packed = pack_weights(context, masters[name], layout, compute_.dtype);
    else
      repack_weights(context, masters[name], packed);
  };
  if (decoder_norms_.bytes() == 0) {
    for (Buffer* per_feature : {&encoder_bias_, &decoder_norms_, &activation_sums_})
      *per_feature = Buffer(context.device(), DType::kFloat32, {shape_.features});
    decoder_bias_ = Buffer(context.device(), DType::kFloat32, {shape_.model_width});
  }
  pack("W_enc", Layout::kOutputInput, encoder_);
  pack("W_dec", Layout::kInputOutput, decoder_);
  pack("W_dec", Layout::kOutputInput, decoder_backward_);
  copy(context, masters["b_enc"], encoder_bias_.tensor());
  copy(context, masters["b_dec"], decoder_bias_.tensor());
  decoder_norms(context, masters["W_dec"], decoder_norms_.tensor());
  if (compute_.sparse_below > 0.0 && compute_.dtype != DType::kFloat32)
    convert(context, masters["W_dec"],
            grown(context, decoder_rows_, compute_.dtype, shape_.features, shape_.model_width));
}

Tensor Transcoder::decoder_rows(const ParameterTensors& masters) const {
  return compute_.dtype == DType::kFloat32 ? masters["W_dec"]
                                           : decoder_rows_.tensor().reshaped({shape_.features, shape_.model_width});
}

void Transcoder::forward(Context& context, const Tensor& x, const Tensor& activations, const Tensor& output) const {
  matmul(context, x, encoder_, encoder_bias_.tensor(), Epilogue::kRelu, activations);
  matmul(context, activations, decoder_, decoder_bias_.tensor(), Epilogue::kNone, output);
}

void Transcoder::forward(Context& context, const Tensor& x, const ParameterTensors& masters, FeatureRecord& record,
                         const Tensor& output) const {
  const Tensor activations = record.begin(x.size(0), shape_.features);
  matmul(context, x, encoder_, encoder_bias_.tensor(), Epilogue::kRelu, activations);
  record.settle(context, compute_.sparse_below);
  if (record.route() == Route::kSparse)
    sparse_decode(context, record.by_token(), decoder_rows(masters), decoder_bias_.tensor(), output);
  else
    matmul(context, activations, decoder_, decoder_bias_.tensor(), Epilogue::kNone, output);
}

void Transcoder::backward(Context& context, const BackwardArguments& arguments) {
  column_sums(context, arguments.cotangent, arguments.gradients["b_dec"]);
  if (arguments.record.route() == Route::kSparse)
    sparse_gradients(context, arguments);
  else
    dense_gradients(context, arguments);
  const Tensor sums = activation_sums_.tensor(), norms = decoder_norms_.tensor();
  sparsity_decoder_gradient(context, sums, arguments.masters["W_dec"], norms, arguments.sparsity,
                            arguments.gradients["W_dec"]);
  weighted_activations(context, sums, norms, arguments.weighted_activations);
}

void Transcoder::dense_gradients(Context& context, const BackwardArguments& arguments) {
  const Tensor& activations = arguments.record.activations();
  const ParameterTensors& gradients = arguments.gradients;
  const Tensor da = grown(context, arguments.record.scratch(FeatureRecord::kActivationGradient), DType::kFloat32,
                          activations.size(0), shape_.features);
  matmul(context, arguments.cotangent, decoder_backward_, Tensor(), Epilogue::kNone, da);
  feature_gradient(context, activations, decoder_norms_.tensor(), arguments.sparsity, da);
  weight_gradient(context, da, arguments.x, compute_.dtype, gradients["W_enc"]);
  column_sums(context, da, gradients["b_enc"]);
  weight_gradient(context, activations, arguments.cotangent, compute_.dtype, gradients["W_dec"]);
  column_sums(context, activations, activation_sums_.tensor());
  active_counts(context, activations, arguments.statistics[kActiveCounts]);
}

void Transcoder::sparse_gradients(Context& context, const BackwardArguments& arguments) {
  FeatureRecord& record = arguments.record;
  const ParameterTensors& gradients = arguments.gradients;
  const Tensor cotangent =
      in_dtype(context, arguments.cotangent, compute_.dtype, record.scratch(FeatureRecord::kRoundedCotangent));
  const Tensor x = in_dtype(context, arguments.x, compute_.dtype, record.scratch(FeatureRecord::kRoundedInput));
  const Tensor da = record.pair_scratch();
  sparse_feature_gradient(context, record.by_token(), decoder_rows(arguments.masters), cotangent,
                          {decoder_norms_.tensor(), arguments.sparsity}, da);
  const FeatureMajorPairs& by_feature = record.by_feature(context);
  sparse_weight_gradient(context, by_feature, da, x, compute_.dtype, gradients["W_enc"]);
  pair_sums(context, by_feature, da, gradients["b_enc"]);
  sparse_weight_gradient(context, by_feature, record.by_token().activations, cotangent, compute_.dtype,
                         gradients["W_dec"]);
  pair_sums(context, by_feature, record.by_token().activations, activation_sums_.tensor());
  pair_counts(context, by_feature, arguments.statistics[kActiveCounts]);
}

}  // namespace tadapt

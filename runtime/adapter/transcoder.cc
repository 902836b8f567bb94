#include "runtime/adapter/transcoder.h"

#include <cmath>
#include <cstring>

#include "kernels/core/random.h"
#include "kernels/features.h"

namespace tadapt {

Transcoder::Transcoder(const AdapterShape& shape, DType compute)
    : shape_(shape),
      compute_(compute),
      encoder_bias_(Device::kCpu, DType::kFloat32, {shape.features}),
      decoder_bias_(Device::kCpu, DType::kFloat32, {shape.model_width}),
      decoder_norms_(Device::kCpu, DType::kFloat32, {shape.features}),
      activation_sums_(Device::kCpu, DType::kFloat32, {shape.features}) {
  if (shape.features < 1) throw ConfigError("adapter.features: expected at least 1, found {}", shape.features);
  require_shape(shape.model_width >= 1, "adapter for a model of width {}", shape.model_width);
}

ParameterGroupSpec Transcoder::parameters(std::string name) const {
  const auto [width, features] = shape_;
  return {std::move(name),
          {{"W_enc", {features, width}}, {"b_enc", {features}}, {"W_dec", {features, width}}, {"b_dec", {width}}},
          {{kActiveCounts, {features}}}};
}

void Transcoder::initialise(const ParameterTensors& masters, std::uint64_t seed, int layer) const {
  const RandomStream random(seed, RandomPurpose::kInitialWeights, 0, static_cast<std::uint64_t>(layer));
  const float bound = 1.0f / std::sqrt(static_cast<float>(shape_.model_width));
  const std::span<float> encoder = masters["W_enc"].span<float>();
  for (std::size_t i = 0; i < encoder.size(); ++i)
    encoder[i] = (2.0f * random.uniform(static_cast<std::uint32_t>(i)) - 1.0f) * bound;
  for (const char* zero : {"b_enc", "W_dec", "b_dec"}) std::memset(masters[zero].data(), 0, masters[zero].bytes());
}

void Transcoder::prepare(Context& context, const ParameterTensors& masters) {
  const auto pack = [&](const char* name, Layout layout, PackedWeights& packed) {
    if (packed.empty())
      packed = pack_weights(context, masters[name], layout, compute_);
    else
      repack_weights(context, masters[name], packed);
  };
  pack("W_enc", Layout::kOutputInput, encoder_);
  pack("W_dec", Layout::kInputOutput, decoder_);
  pack("W_dec", Layout::kOutputInput, decoder_backward_);
  std::memcpy(encoder_bias_.data(), masters["b_enc"].data(), encoder_bias_.bytes());
  std::memcpy(decoder_bias_.data(), masters["b_dec"].data(), decoder_bias_.bytes());
  decoder_norms(context, masters["W_dec"], decoder_norms_.tensor());
}

void Transcoder::forward(Context& context, const Tensor& x, const Tensor& activations, const Tensor& output) const {
  matmul(context, x, encoder_, encoder_bias_.tensor(), Epilogue::kRelu, activations);
  matmul(context, activations, decoder_, decoder_bias_.tensor(), Epilogue::kNone, output);
}

AdapterBackward Transcoder::backward(Context& context, const BackwardArguments& arguments) {
  const std::int64_t tokens = arguments.x.size(0);
  if (activation_gradient_.tensor().elements() < tokens * shape_.features)
    activation_gradient_ = Buffer(Device::kCpu, DType::kFloat32, {tokens * shape_.features});
  const Tensor da = activation_gradient_.tensor().rows(0, tokens * shape_.features).reshaped({tokens, shape_.features});
  const ParameterTensors& gradients = arguments.gradients;
  const Tensor sums = activation_sums_.tensor();
  const Tensor norms = decoder_norms_.tensor();

  matmul(context, arguments.cotangent, decoder_backward_, Tensor(), Epilogue::kNone, da);
  feature_gradient(context, arguments.activations, norms, arguments.sparsity, da);
  weight_gradient(context, da, arguments.x, compute_, gradients["W_enc"]);
  column_sums(context, da, gradients["b_enc"]);
  weight_gradient(context, arguments.activations, arguments.cotangent, compute_, gradients["W_dec"]);
  column_sums(context, arguments.cotangent, gradients["b_dec"]);
  column_sums(context, arguments.activations, sums);
  sparsity_decoder_gradient(context, sums, arguments.masters["W_dec"], norms, arguments.sparsity, gradients["W_dec"]);
  active_counts(context, arguments.activations, arguments.statistics[kActiveCounts]);

  double weighted = 0.0;
  const std::span<const float> sum = sums.span<float>();
  const std::span<const float> norm = norms.span<float>();
  for (std::size_t i = 0; i < sum.size(); ++i) weighted += static_cast<double>(sum[i]) * static_cast<double>(norm[i]);
  return {weighted};
}

}  // namespace tadapt

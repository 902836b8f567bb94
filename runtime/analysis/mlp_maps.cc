#include "runtime/analysis/mlp_maps.h"

#include <algorithm>

#include "kernels/norm.h"

namespace tadapt {
namespace {

/// Rows of a packed matrix that are read out at once.
constexpr std::int64_t kReadRows = 1024;

std::int64_t bytes_of_layer(const DecoderConfig& config, std::int64_t tokens) {
  return tokens * config.width * config.width * static_cast<std::int64_t>(sizeof(float));
}

/// Memory as large as needed, all of one number.
Buffer filled(Context& context, Shape shape, float number) {
  std::vector<float> numbers(static_cast<std::size_t>(shape.elements()), number);
  Buffer buffer(context.device(), DType::kFloat32, shape);
  copy(context, Tensor::of(std::span(numbers), shape), buffer.tensor());
  synchronize(context);
  return buffer;
}

/// What multiply(e_h) gives for each unit vector of `count`, as rows: the numbers of a packed matrix.
template <class Multiply>
Buffer read_rows(Context& context, std::int64_t count, std::int64_t width, const Multiply& multiply) {
  Buffer rows(context.device(), DType::kFloat32, {count, width});
  for (std::int64_t begin = 0; begin < count; begin += kReadRows) {
    const std::int64_t end = std::min(begin + kReadRows, count);
    std::vector<float> units(static_cast<std::size_t>((end - begin) * count), 0.0f);
    for (std::int64_t h = begin; h < end; ++h) units[static_cast<std::size_t>((h - begin) * count + h)] = 1.0f;
    const DeviceView view(context, Tensor::of(std::span(units), {end - begin, count}));
    multiply(view.tensor(), rows.tensor().rows(begin, end));
    synchronize(context);
  }
  return rows;
}

}  // namespace

int MlpMaps::layers_that_pay(const DecoderConfig& config, const PromptRecord& record, std::int64_t targets,
                             std::int64_t most_bytes) {
  // Of all active features so many become targets, about alike in all layers and positions.
  const double share =
      std::min(1.0, static_cast<double>(targets) / static_cast<double>(std::max<std::int64_t>(1, record.pairs())));
  const auto tokens = static_cast<double>(record.tokens());
  const auto width = static_cast<double>(config.width), mlp_width = static_cast<double>(config.mlp_width);
  // FLOP of a row and of a map; what is not a product in a map's making takes about half as long again.
  const double saved = 6.0 * width * mlp_width - 2.0 * width * width, making = 1.5 * 2.0 * width * width * mlp_width;
  std::vector<double> rows(record.layers().size(), 0.0);  // that pass a layer
  double above = 0.0;
  for (std::size_t layer = rows.size(); layer-- > 0;) {
    rows[layer] = above;
    for (const std::int32_t position : record.layers()[layer].positions) above += share * (position + 1.0);
  }
  const auto fitting = static_cast<std::size_t>(most_bytes / bytes_of_layer(config, record.tokens()));
  std::size_t layers = 0;
  while (layers < rows.size() && layers < fitting && rows[layers] * saved > tokens * making) ++layers;
  return static_cast<int>(layers);
}

std::int64_t MlpMaps::bytes(const DecoderConfig& config, std::int64_t tokens, std::int64_t most_bytes) {
  const std::int64_t layer = bytes_of_layer(config, tokens);
  const std::int64_t layers = std::min<std::int64_t>(config.layers, most_bytes / layer);
  if (layers == 0) return 0;
  // Three matrices, what they are blended to, the unit vectors they are read out with; factors and scales.
  const std::int64_t making = 4 * config.width * config.mlp_width +
                              std::min(kReadRows, config.mlp_width) * config.mlp_width +
                              tokens * (3 * config.mlp_width + 2 * config.width);
  return layers * layer + making * static_cast<std::int64_t>(sizeof(float));
}

MlpMaps::MlpMaps(Context& context, const AttributionModel& model, const PromptRecord& record, int layers,
                 const std::function<void()>& on_layer)
    : layers_(layers),
      tokens_(record.tokens()),
      maps_(context.device(), DType::kFloat32,
            {layers * record.tokens(), model.decoder().config().width, model.decoder().config().width}) {
  for (int layer = 0; layer < layers_; ++layer) {
    make(context, model, record.layers()[static_cast<std::size_t>(layer)], layer);
    on_layer();
  }
}

void MlpMaps::make(Context& context, const AttributionModel& model, const PromptRecord::Layer& record, int layer) {
  const Decoder& decoder = model.decoder();
  const DecoderConfig& config = decoder.config();
  const MlpWeights& weights = decoder.mlp_weights(layer, MlpSource::kTarget);
  const std::int64_t inner = config.mlp_width, width = config.width;
  const auto back = [&](const PackedWeights& packed) {
    return [&](const Tensor& units, const Tensor& rows) { matmul_backward(context, units, packed, rows); };
  };
  const Buffer gate = read_rows(context, inner, width, back(weights.gate)),
               up = read_rows(context, inner, width, back(weights.up)),
               down = read_rows(context, inner, width, [&](const Tensor& units, const Tensor& rows) {
                 matmul(context, units, weights.down, Tensor(), Epilogue::kNone, rows);
               });
  // Both nonlinear parts give their factors when they are handed ones.
  const Buffer gate_factors(context.device(), DType::kFloat32, {tokens_, inner}),
      up_factors = filled(context, {tokens_, inner}, 1.0f);
  swiglu_backward(context, {record.mlp.gate, record.mlp.up}, up_factors.tensor(), Linearisation::kRelp,
                  {gate_factors.tensor(), up_factors.tensor()});
  const Buffer scales = filled(context, {tokens_, width}, 0.0f), ones = filled(context, {tokens_, width}, 1.0f);
  rms_norm_backward(
      context, {record.middle, decoder.layer_weights(layer).mlp_norm.tensor(), static_cast<float>(config.norm_epsilon)},
      ones.tensor(), Linearisation::kRelp, scales.tensor());
  const Buffer blended(context.device(), DType::kFloat32, {inner, width});
  for (std::int64_t t = 0; t < tokens_; ++t) {
    const auto factors = [&](const Buffer& all) { return all.tensor().rows(t, t + 1).reshaped({inner}); };
    blend_rows(context, {factors(gate_factors), factors(up_factors)}, {gate.tensor(), up.tensor()},
               scales.tensor().rows(t, t + 1).reshaped({width}), blended.tensor());
    weight_gradient(context, down.tensor(), blended.tensor(), DType::kFloat32,
                    of(layer).rows(t, t + 1).reshaped({width, width}));
  }
  synchronize(context);
}

}  // namespace tadapt

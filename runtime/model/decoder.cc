#include "runtime/model/decoder.h"

#include <algorithm>

#include "kernels/attention.h"
#include "kernels/norm.h"
#include "kernels/pointwise.h"
#include "kernels/rope.h"

namespace tadapt {
namespace {

Tensor view(const Buffer& bias) { return bias.bytes() == 0 ? Tensor() : bias.tensor(); }

}  // namespace

Tensor Workspace::of(Slot slot, Shape shape) {
  Buffer& buffer = buffers_[slot];
  const std::size_t bytes = static_cast<std::size_t>(shape.elements()) * sizeof(float);
  if (buffer.bytes() < bytes || buffer.data() == nullptr) {
    buffer = Buffer();  // released first, so that both are never held
    buffer = Buffer(device_, bytes);
  }
  return Tensor(buffer.data(), DType::kFloat32, shape, device_);
}

Decoder::Decoder(DecoderConfig config, const DecoderCompute& compute, TrunkWeights trunk, SharedMlps target,
                 SharedMlps base)
    : config_(std::move(config)),
      compute_(compute),
      trunk_(std::move(trunk)),
      target_mlps_(std::move(target)),
      base_mlps_(std::move(base)) {}

Decoder Decoder::load(Context& context, FileSystem& files, const std::filesystem::path& directory,
                      const DecoderCompute& compute) {
  const DecoderConfig config = load_decoder_config(files, directory);
  const ModelFiles files_of_model(directory);
  return make(context, config, FileWeights(files_of_model), compute);
}

Decoder Decoder::make(Context& context, const DecoderConfig& config, const WeightSource& weights,
                      const DecoderCompute& compute) {
  const SharedMlps mlps = load_mlps(context, weights, config, compute);
  return Decoder(config, compute, load_trunk(context, weights, config, compute), mlps, mlps);
}

Decoder Decoder::make_pair(Context& context, const DecoderConfig& config, const WeightSource& target,
                           const WeightSource& base, const DecoderCompute& compute) {
  return Decoder(config, compute, load_trunk(context, target, config, compute),
                 load_mlps(context, target, config, compute), load_mlps(context, base, config, compute));
}

Decoder Decoder::load_pair(Context& context, FileSystem& files, const std::filesystem::path& target,
                           const std::filesystem::path& base, const DecoderCompute& compute) {
  const DecoderConfig base_config = load_decoder_config(files, base);
  require_same_mlp_shapes(base_config, load_decoder_config(files, target));
  Decoder pair = load(context, files, target, compute);
  const ModelFiles base_files(base);
  pair.base_mlps_ = load_mlps(context, FileWeights(base_files), base_config, compute);
  return pair;
}

Decoder Decoder::load_base(Context& context, FileSystem& files, const std::filesystem::path& base) const {
  const DecoderConfig config = load_decoder_config(files, base);
  require_same_mlp_shapes(config, config_);
  const ModelFiles base_files(base);
  return Decoder(config, compute_, load_trunk(context, FileWeights(base_files), config, compute_), base_mlps_,
                 base_mlps_);
}

void Decoder::embed(Context& context, const TokenTensors& tokens, const Tensor& residual) const {
  const TokenBatch& batch = tokens.batch;
  for (std::size_t row = 0; row < batch.ids.size(); ++row) {
    if (batch.ids[row] >= 0 && batch.ids[row] < config_.vocabulary) continue;
    throw DataError("token id {} at position {} of a sequence is outside the vocabulary of {} (vocab_size in {})",
                    batch.ids[row], batch.positions[row], config_.vocabulary, config_.file.string());
  }
  tadapt::embed(context, tokens.ids, trunk_.embeddings.tensor(), residual);
}

void Decoder::add_attention(Context& context, Workspace& workspace, int layer, const TokenTensors& tokens,
                            const Tensor& residual, const CachedBatch* cached) const {
  const std::int64_t rows = residual.size(0);
  const AttentionRecord record{.query = workspace.of(Workspace::kQuery, {rows, config_.query_width()}),
                               .key = workspace.of(Workspace::kKey, {rows, config_.key_width()}),
                               .value = workspace.of(Workspace::kValue, {rows, config_.key_width()}),
                               .attended = workspace.of(Workspace::kAttended, {rows, config_.query_width()}),
                               .log_sums = Tensor()};
  const Tensor out = workspace.of(Workspace::kAttentionOut, {rows, config_.width});
  if (cached == nullptr) {
    attention(context, workspace, {layer, tokens, residual, record}, out);
  } else {
    const AttentionInput heads = project(context, workspace, layer, tokens, residual, record);
    const Tensor attended = record.attended.reshaped(heads.query.shape());
    store_in_cache(context, heads.key, heads.value, cached->slots, cached->cache.layer(layer));
    if (cached->tables.empty())
      causal_attention(context, heads, attended);
    else
      cached_attention(context, {heads.query, tokens.positions, cached->tables}, cached->cache.layer(layer), attended);
    matmul(context, record.attended, out_weights(layer), Tensor(), Epilogue::kNone, out);
  }
  add_to(context, out, residual);
}

void Decoder::attention(Context& context, Workspace& workspace, const AttentionPlace& place, const Tensor& out) const {
  const auto& [layer, tokens, residual, record] = place;
  const AttentionInput heads = project(context, workspace, layer, tokens, residual, record);
  causal_attention(context, heads, record.attended.reshaped(heads.query.shape()), record.log_sums);
  matmul(context, record.attended, out_weights(layer), Tensor(), Epilogue::kNone, out);
}

AttentionInput Decoder::project(Context& context, Workspace& workspace, int layer, const TokenTensors& tokens,
                                const Tensor& residual, const AttentionRecord& record) const {
  const AttentionWeights& weights = trunk_.layers.at(static_cast<std::size_t>(layer)).attention;
  const Tensor normed = workspace.of(Workspace::kNormed, residual.shape());
  rms_norm(context, residual, weights.norm.tensor(), static_cast<float>(config_.norm_epsilon), normed);
  matmul(context, normed, weights.query, view(weights.query_bias), Epilogue::kNone, record.query);
  matmul(context, normed, weights.key, view(weights.key_bias), Epilogue::kNone, record.key);
  matmul(context, normed, weights.value, view(weights.value_bias), Epilogue::kNone, record.value);
  const AttentionInput heads = attention_input(record, tokens);
  rope(context, heads.query, tokens.positions, config_.rope_theta);
  rope(context, heads.key, tokens.positions, config_.rope_theta);
  return heads;
}

AttentionInput Decoder::attention_input(const AttentionRecord& record, const TokenTensors& tokens) const {
  const std::int64_t rows = record.query.size(0);
  const Shape key_heads{rows, config_.kv_heads, config_.head_width};
  return {.query = record.query.reshaped({rows, config_.heads, config_.head_width}),
          .key = record.key.reshaped(key_heads),
          .value = record.value.reshaped(key_heads),
          .offsets = tokens.offsets,
          .compute = compute_.dtype};
}

void Decoder::mlp_input(Context& context, int layer, const Tensor& residual, const Tensor& mlp_in) const {
  const Buffer& norm = trunk_.layers.at(static_cast<std::size_t>(layer)).mlp_norm;
  rms_norm(context, residual, norm.tensor(), static_cast<float>(config_.norm_epsilon), mlp_in);
}

void Decoder::mlp(Context& context, Workspace& workspace, const MlpPlace& place, const Tensor& mlp_out) const {
  const auto& [layer, source, mlp_in, record] = place;
  const MlpWeights& weights = mlp_weights(layer, source);
  for (std::int64_t begin = 0; begin < mlp_in.size(0); begin += kMlpRows) {
    const std::int64_t end = std::min(begin + kMlpRows, mlp_in.size(0));
    const Tensor x = mlp_in.rows(begin, end);
    const Shape shape{end - begin, config_.mlp_width};
    const bool kept = !record.gate.empty();
    const Tensor gate = kept ? record.gate.rows(begin, end) : workspace.of(Workspace::kGate, shape);
    const Tensor up = kept ? record.up.rows(begin, end) : workspace.of(Workspace::kUp, shape);
    const Tensor hidden = kept ? workspace.of(Workspace::kHidden, shape) : gate;
    matmul(context, x, weights.gate, Tensor(), Epilogue::kNone, gate);
    matmul(context, x, weights.up, Tensor(), Epilogue::kNone, up);
    swiglu(context, gate, up, hidden);
    matmul(context, hidden, weights.down, Tensor(), Epilogue::kNone, mlp_out.rows(begin, end));
  }
}

const MlpWeights& Decoder::mlp_weights(int layer, MlpSource source) const {
  const SharedMlps& mlps = source == MlpSource::kTarget ? target_mlps_ : base_mlps_;
  return *mlps.at(static_cast<std::size_t>(layer));
}

void Decoder::final_norm(Context& context, const Tensor& residual, const Tensor& final_norm) const {
  rms_norm(context, residual, trunk_.final_norm.tensor(), static_cast<float>(config_.norm_epsilon), final_norm);
}

void Decoder::logits(Context& context, const Tensor& final_norm, const Tensor& logits) const {
  matmul(context, final_norm, trunk_.head, Tensor(), Epilogue::kNone, logits);
}

namespace {

std::int64_t attention_numbers(const DecoderConfig& config) {
  return 2 * config.width * (config.query_width() + config.key_width()) + config.query_width() +
         2 * config.key_width() + 2 * config.width;
}

std::int64_t mlp_numbers(const DecoderConfig& config) { return 3 * config.width * config.mlp_width; }

}  // namespace

std::uint64_t pair_memory_bytes(const DecoderConfig& target, DType compute) {
  // A tied head is packed beside the table of embeddings.
  const std::int64_t numbers = target.layers * (attention_numbers(target) + 2 * mlp_numbers(target)) +
                               2 * target.vocabulary * target.width + target.width;
  return static_cast<std::uint64_t>(numbers) * bytes_per_element(compute);
}

std::uint64_t frozen_memory_bytes(const DecoderConfig& target, DType compute, Device device, int trunks) {
  const std::int64_t table = target.vocabulary * target.width;
  const std::int64_t packed =
      target.layers * (trunks * attention_numbers(target) + 2 * mlp_numbers(target)) + trunks * table;
  return static_cast<std::uint64_t>(packed) * packed_bytes_per_number(device, compute, Directions::kBoth) +
         static_cast<std::uint64_t>(trunks * table) * bytes_per_element(compute);
}

ForwardFlops forward_flops(const DecoderConfig& config) {
  const double width = static_cast<double>(config.width);
  const double query = static_cast<double>(config.query_width()), key = static_cast<double>(config.key_width());
  return {.attention_per_token = 2 * width * (2 * query + 2 * key),
          .attention_per_context = 4 * query,
          .mlp_per_token = 6 * width * static_cast<double>(config.mlp_width),
          .head_per_token = 2 * width * static_cast<double>(config.vocabulary)};
}

}  // namespace tadapt

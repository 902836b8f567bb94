#include "runtime/model/decoder.h"

#include <algorithm>

#include "kernels/attention.h"
#include "kernels/norm.h"
#include "kernels/pointwise.h"
#include "kernels/rope.h"

namespace tadapt {
namespace {

/// MLPs run over this many rows at a time: their hidden values are the widest of the pass, and rows are independent.
constexpr std::int64_t kMlpRows = 1024;

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

Decoder::Decoder(DecoderConfig config, DType compute, TrunkWeights trunk, SharedMlps target, SharedMlps base)
    : config_(std::move(config)),
      compute_(compute),
      trunk_(std::move(trunk)),
      target_mlps_(std::move(target)),
      base_mlps_(std::move(base)) {}

Decoder Decoder::load(Context& context, FileSystem& files, const std::filesystem::path& directory, DType compute) {
  const DecoderConfig config = load_decoder_config(files, directory);
  const ModelFiles files_of_model(directory);
  const FileWeights weights(files_of_model);
  const SharedMlps mlps = load_mlps(context, weights, config, compute);
  return Decoder(config, compute, load_trunk(context, weights, config, compute), mlps, mlps);
}

Decoder Decoder::make_pair(Context& context, const DecoderConfig& config, const WeightSource& target,
                           const WeightSource& base, DType compute) {
  return Decoder(config, compute, load_trunk(context, target, config, compute),
                 load_mlps(context, target, config, compute), load_mlps(context, base, config, compute));
}

Decoder Decoder::load_pair(Context& context, FileSystem& files, const std::filesystem::path& target,
                           const std::filesystem::path& base, DType compute) {
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
  const AttentionWeights& weights = trunk_.layers.at(static_cast<std::size_t>(layer)).attention;
  const std::int64_t rows = residual.size(0);
  const Tensor normed = workspace.of(Workspace::kNormed, {rows, config_.width});
  const Tensor query = workspace.of(Workspace::kQuery, {rows, config_.query_width()});
  const Tensor key = workspace.of(Workspace::kKey, {rows, config_.key_width()});
  const Tensor value = workspace.of(Workspace::kValue, {rows, config_.key_width()});
  rms_norm(context, residual, weights.norm.tensor(), static_cast<float>(config_.norm_epsilon), normed);
  matmul(context, normed, weights.query, view(weights.query_bias), Epilogue::kNone, query);
  matmul(context, normed, weights.key, view(weights.key_bias), Epilogue::kNone, key);
  matmul(context, normed, weights.value, view(weights.value_bias), Epilogue::kNone, value);

  const Shape query_heads{rows, config_.heads, config_.head_width};
  const Shape key_heads{rows, config_.kv_heads, config_.head_width};
  rope(context, query.reshaped(query_heads), tokens.positions, config_.rope_theta);
  rope(context, key.reshaped(key_heads), tokens.positions, config_.rope_theta);
  if (cached != nullptr)
    store_in_cache(context, key.reshaped(key_heads), value.reshaped(key_heads), cached->slots,
                   cached->cache.layer(layer));
  const Tensor attended = workspace.of(Workspace::kAttended, {rows, config_.query_width()});
  if (cached != nullptr && !cached->tables.empty())
    cached_attention(context, {query.reshaped(query_heads), tokens.positions, cached->tables},
                     cached->cache.layer(layer), attended.reshaped(query_heads));
  else
    causal_attention(context,
                     {.query = query.reshaped(query_heads),
                      .key = key.reshaped(key_heads),
                      .value = value.reshaped(key_heads),
                      .offsets = tokens.offsets,
                      .compute = compute_},
                     attended.reshaped(query_heads));
  const Tensor out = workspace.of(Workspace::kAttentionOut, {rows, config_.width});
  matmul(context, attended, weights.out, Tensor(), Epilogue::kNone, out);
  add_to(context, out, residual);
}

void Decoder::mlp_input(Context& context, int layer, const Tensor& residual, const Tensor& mlp_in) const {
  const Buffer& norm = trunk_.layers.at(static_cast<std::size_t>(layer)).mlp_norm;
  rms_norm(context, residual, norm.tensor(), static_cast<float>(config_.norm_epsilon), mlp_in);
}

void Decoder::mlp(Context& context, Workspace& workspace, int layer, MlpSource source, const Tensor& mlp_in,
                  const Tensor& mlp_out) const {
  const SharedMlps& mlps = source == MlpSource::kTarget ? target_mlps_ : base_mlps_;
  const MlpWeights& weights = *mlps.at(static_cast<std::size_t>(layer));
  for (std::int64_t begin = 0; begin < mlp_in.size(0); begin += kMlpRows) {
    const std::int64_t end = std::min(begin + kMlpRows, mlp_in.size(0));
    const Tensor x = mlp_in.rows(begin, end);
    const Tensor gate = workspace.of(Workspace::kGate, {end - begin, config_.mlp_width});
    const Tensor up = workspace.of(Workspace::kUp, {end - begin, config_.mlp_width});
    matmul(context, x, weights.gate, Tensor(), Epilogue::kNone, gate);
    matmul(context, x, weights.up, Tensor(), Epilogue::kNone, up);
    swiglu(context, gate, up, gate);
    matmul(context, gate, weights.down, Tensor(), Epilogue::kNone, mlp_out.rows(begin, end));
  }
}

void Decoder::final_norm(Context& context, const Tensor& residual, const Tensor& final_norm) const {
  rms_norm(context, residual, trunk_.final_norm.tensor(), static_cast<float>(config_.norm_epsilon), final_norm);
}

void Decoder::logits(Context& context, const Tensor& final_norm, const Tensor& logits) const {
  matmul(context, final_norm, trunk_.head, Tensor(), Epilogue::kNone, logits);
}

std::uint64_t pair_memory_bytes(const DecoderConfig& target, DType compute) {
  const std::int64_t mlp = 3 * target.width * target.mlp_width;
  const std::int64_t attention = 2 * target.width * (target.query_width() + target.key_width()) + target.query_width() +
                                 2 * target.key_width() + 2 * target.width;
  // A tied head is packed beside the table of embeddings.
  const std::int64_t numbers =
      target.layers * (attention + 2 * mlp) + 2 * target.vocabulary * target.width + target.width;
  return static_cast<std::uint64_t>(numbers) * bytes_per_element(compute);
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

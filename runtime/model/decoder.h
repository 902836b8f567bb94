// Decoder: the frozen weights of a model and the pieces of its forward pass.
#pragma once

#include <array>
#include <filesystem>

#include "kernels/attention.h"
#include "kernels/core/linearisation.h"
#include "runtime/model/decoder_weights.h"
#include "runtime/model/key_value_cache.h"
#include "runtime/model/token_tensors.h"

namespace tadapt {

/// Whose MLPs a layer runs: the fine-tuned target's or the base's.
enum class MlpSource { kTarget, kBase };

/// Memory of one forward pass on a device, grown when asked for more and reused from batch to batch.
class Workspace {
 public:
  explicit Workspace(Device device) : device_(device) {}

  enum Slot {
    kResidual,
    kNormed,
    kQuery,
    kKey,
    kValue,
    kAttended,
    kAttentionOut,
    kGate,
    kUp,
    kHidden,
    kMlpOut,
    kQueryCotangent,
    kKeyCotangent,
    kValueCotangent,
    kAttendedCotangent,
    kNormedCotangent,
    kPartialCotangent,
    kSlots
  };

  /// float32 memory of this shape; what the slot held before is lost.
  Tensor of(Slot slot, Shape shape);

 private:
  Device device_;
  std::array<Buffer, kSlots> buffers_;
};

/// What a layer's attention leaves for its backward, [T, …] float32.
struct AttentionRecord {
  Tensor query, key, value;  ///< [T, H·h], [T, Kv·h] twice: rotated, as attention reads them
  Tensor attended;           ///< [T, H·h]
  Tensor log_sums;           ///< [T, H]; Tensor{}: no backward will come
};

/// The hidden values of an MLP, [T, d_ff] float32 each; both Tensor{} where backward is to compute them again.
struct MlpRecord {
  Tensor gate, up;
};

/// Where attention runs, forwards or backwards, and on what.
struct AttentionPlace {
  int layer;
  const TokenTensors& tokens;
  const Tensor& residual;  ///< [T, D], entering the layer
  const AttentionRecord& record;
};

/// Where an MLP runs, forwards or backwards, and on what.
struct MlpPlace {
  int layer;
  MlpSource source;
  const Tensor& mlp_in;  ///< [T, D]
  const MlpRecord& record;
};

/// Frozen weights, each tensor held once however many splices use it. Immutable after loading: one decoder may serve
/// any number of passes. The residual stream is float32; operands of products have the compute type.
/// All tensors lie where the context computes, the weights too: a decoder serves contexts of the device it was loaded
/// for. Every row of every result depends on its own sequence up to that token only, bit for bit: not on what else is
/// packed with it, nor on the number of threads.
class Decoder {
 public:
  /// A model alone: both MLP sources are its own.
  static Decoder load(Context& context, FileSystem& files, const std::filesystem::path& directory,
                      const DecoderCompute& compute);
  /// The same from any source.
  static Decoder make(Context& context, const DecoderConfig& config, const WeightSource& weights,
                      const DecoderCompute& compute);
  /// The target with a second set of MLPs, the base's; both have the same L, D and d_ff (else ConfigError).
  static Decoder load_pair(Context& context, FileSystem& files, const std::filesystem::path& target,
                           const std::filesystem::path& base, const DecoderCompute& compute);
  /// The same from any sources of one shape.
  static Decoder make_pair(Context& context, const DecoderConfig& config, const WeightSource& target,
                           const WeightSource& base, const DecoderCompute& compute);
  /// The base model alone, sharing the base MLPs that this pair already holds; `base` as given to load_pair.
  Decoder load_base(Context& context, FileSystem& files, const std::filesystem::path& base) const;

  const DecoderConfig& config() const { return config_; }
  DType compute() const { return compute_.dtype; }
  /// All of a layer but its MLP, and the MLP of a source: for passes that these pieces do not have.
  const LayerWeights& layer_weights(int layer) const { return trunk_.layers.at(static_cast<std::size_t>(layer)); }
  const MlpWeights& mlp_weights(int layer, MlpSource source) const;

  /// residual [T, D] = the tokens' embeddings. DataError naming id and position when an id is outside the vocabulary.
  void embed(Context& context, const TokenTensors& tokens, const Tensor& residual) const;
  /// residual [T, D] += attention(norm(residual)); with `cached` the tokens' keys and values are kept there, and its
  /// tables say what they attend to. On the CPU with a float32 cache a token's row has the same bits either way.
  void add_attention(Context& context, Workspace& workspace, int layer, const TokenTensors& tokens,
                     const Tensor& residual, const CachedBatch* cached = nullptr) const;
  /// out [T, D] = attention(norm(residual)); must not overlap it. Fills the place's record.
  void attention(Context& context, Workspace& workspace, const AttentionPlace& place, const Tensor& out) const;
  /// mlp_in [T, D] = what the layer's MLP reads: the target's norm of the residual after attention
  void mlp_input(Context& context, int layer, const Tensor& residual, const Tensor& mlp_in) const;
  /// mlp_out [T, D] = the MLP of mlp_in; must not overlap it
  void mlp(Context& context, Workspace& workspace, int layer, MlpSource source, const Tensor& mlp_in,
           const Tensor& mlp_out) const {
    mlp(context, workspace, {layer, source, mlp_in, MlpRecord{}}, mlp_out);
  }
  /// The same; fills the place's record, if it has one.
  void mlp(Context& context, Workspace& workspace, const MlpPlace& place, const Tensor& mlp_out) const;
  /// final_norm [R, D] = the final norm of rows of the last residual state
  void final_norm(Context& context, const Tensor& residual, const Tensor& final_norm) const;
  /// logits [R, V] = head · final_norm
  void logits(Context& context, const Tensor& final_norm, const Tensor& logits) const;

  // The same pieces backwards, for decoders loaded for both directions: gradients of a loss with respect to what each
  // piece read, the weights being constants. Rows are as independent as they are forwards.

  /// cotangent [T, D] += dL/dresidual of attention(norm(residual)), whose own cotangent is what `cotangent` holds: that
  /// of the state after attention becomes that of the state before. The record is read only.
  void add_attention_cotangent(Context& context, Workspace& workspace, const AttentionPlace& place,
                               Linearisation linearisation, const Tensor& cotangent) const;
  /// gradient [T, D] = dL/dmlp_in, from `cotangent` [T, D] = dL/dmlp_out. Uses up the record's numbers; computes them
  /// again where there is none.
  void mlp_backward(Context& context, Workspace& workspace, const MlpPlace& place, Linearisation linearisation,
                    const Tensor& cotangent, const Tensor& gradient) const;
  /// cotangent [T, D] += dL/dresidual of mlp_input, from mlp_in_cotangent [T, D]
  void add_mlp_input_cotangent(Context& context, int layer, const Tensor& residual, Linearisation linearisation,
                               const Tensor& mlp_in_cotangent, const Tensor& cotangent) const;
  /// cotangent [R, D] += dL/dresidual of logits(final_norm(residual)), from logits_cotangent [R, V]
  void add_logits_cotangent(Context& context, Workspace& workspace, const Tensor& residual, Linearisation linearisation,
                            const Tensor& logits_cotangent, const Tensor& cotangent) const;

 private:
  /// MLPs run over this many rows at a time: their hidden values are the widest of the pass, and rows are independent.
  static constexpr std::int64_t kMlpRows = 1024;

  Decoder(DecoderConfig config, const DecoderCompute& compute, TrunkWeights trunk, SharedMlps target, SharedMlps base);

  /// Queries, keys and values of norm(residual), rotated.
  AttentionInput project(Context& context, Workspace& workspace, int layer, const TokenTensors& tokens,
                         const Tensor& residual, const AttentionRecord& record) const;
  AttentionInput attention_input(const AttentionRecord& record, const TokenTensors& tokens) const;
  const PackedWeights& out_weights(int layer) const { return layer_weights(layer).attention.out; }

  DecoderConfig config_;
  DecoderCompute compute_;
  TrunkWeights trunk_;
  SharedMlps target_mlps_, base_mlps_;
};

/// Bytes that load_pair() keeps in memory, roughly: the target's numbers and the base's MLPs, all as `compute`.
std::uint64_t pair_memory_bytes(const DecoderConfig& target, DType compute);

/// Bytes that a training run keeps of the pair's frozen models: all of it for `device`, with `trunks` of them beside
/// the MLPs of both (2: the base's attention, norms, embeddings and head too).
std::uint64_t frozen_memory_bytes(const DecoderConfig& target, DType compute, Device device, int trunks);

/// Multiply-adds count twice; attention's products over its context included.
struct ForwardFlops {
  double attention_per_token = 0;    ///< projections of one layer
  double attention_per_context = 0;  ///< scores and sums of one layer, per token and token attended to
  double mlp_per_token = 0;          ///< one MLP of one layer
  double head_per_token = 0;
};
ForwardFlops forward_flops(const DecoderConfig& config);

}  // namespace tadapt

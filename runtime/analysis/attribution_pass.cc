#include "runtime/analysis/attribution_pass.h"

#include <algorithm>
#include <array>
#include <numeric>

#include "kernels/attention_backward.h"
#include "kernels/core/memory.h"
#include "kernels/norm.h"
#include "kernels/pointwise.h"
#include "kernels/sparse.h"

namespace tadapt {
namespace {

constexpr Linearisation kRelp = Linearisation::kRelp;
/// MLPs run over this many rows at a time: their hidden values are the widest of the pass.
constexpr std::int64_t kMlpRows = 1024;

/// Numbers that pieces of work are described with: 0, 1, 2, … and zeros, where attribution computes.
struct Constants {
  Tensor counting;  ///< [T + 1] int32
  Tensor zeros;     ///< float32, as many as any matrix of vectors has rows
  Tensor ones;      ///< [T] float32: what is active

  /// One pair a row: with vector 0 always, or with the vector of the row's number.
  SparseFeatures same_vector(std::int64_t rows) const {
    return {counting.rows(0, rows + 1), Tensor(zeros.data(), DType::kInt32, {rows}, zeros.device()),
            ones.rows(0, rows)};
  }
  SparseFeatures own_vector(std::int64_t rows) const {
    return {counting.rows(0, rows + 1), counting.rows(0, rows), ones.rows(0, rows)};
  }
};

/// What numbers of a target are products of.
enum class Product : std::uint8_t { kFeatures, kDecoderBias, kValueBias, kTokens };

/// Numbers [begin, begin + count) of a batch.
struct Piece {
  Product product;
  int layer;
  std::int64_t begin, count;
};

/// A target, its rows of the batch's matrices (one a position up to its own), and the numbers read for it.
struct Traced {
  AttributionTarget target;
  std::int64_t begin, rows;
  std::vector<Piece> pieces = {};

  std::int64_t end() const { return begin + rows; }
  Tensor rows_of(const Tensor& matrix) const { return matrix.rows(begin, end()); }
};

/// The rows of some targets, position by position.
struct RowsByPosition {
  std::vector<std::int32_t> offsets, rows;

  RowsByPosition(std::span<const Traced> some, std::int64_t positions) : offsets{0} {
    for (std::int64_t position = 0; position < positions; ++position) {
      for (const Traced& traced : some)
        if (position < traced.rows) rows.push_back(static_cast<std::int32_t>(traced.begin + position));
      offsets.push_back(static_cast<std::int32_t>(rows.size()));
    }
  }
};

/// One batch on its way back. At layer ℓ the targets above it are under way: the first of them, since later layers come
/// first.
class Backward {
 public:
  struct Prompt {
    PromptMemory& memory;
    const PromptRecord& record;
    const MlpMaps* maps;
  };
  Backward(Context& context, const AttributionModel& model, const Prompt& prompt, const Constants& constants,
           std::span<const AttributionTarget> targets)
      : context_(context),
        model_(model),
        decoder_(model.decoder()),
        config_(decoder_.config()),
        workspace_(prompt.memory.workspace),
        record_(prompt.record),
        maps_(prompt.maps),
        constants_(constants) {
    std::int64_t rows = 0;
    for (const AttributionTarget& target : targets) {
      require_shape(traced_.empty() || target.layer <= traced_.back().target.layer,
                    "attribution: a target of layer {} after one of layer {}", target.layer,
                    traced_.empty() ? 0 : traced_.back().target.layer);
      traced_.push_back({.target = target, .begin = rows, .rows = target.position + 1});
      rows += target.position + 1;
    }
    cotangent_ = workspace_.of(Workspace::kResidual, {rows, config_.width});
    if (mapped_layers() > 0) mapped_ = workspace_.of(Workspace::kNormed, {rows, config_.width});
    numbers_ = Buffer(context.device(), DType::kFloat32, {count_numbers()});
  }

  std::vector<Contributions> run(const std::function<void()>& on_layer) {
    clear(context_, cotangent_);
    if (!mapped_.empty()) clear(context_, mapped_);
    std::size_t under_way = 0;
    for (; under_way < traced_.size() && traced_[under_way].target.layer == config_.layers; ++under_way)
      inject_logit(traced_[under_way]);
    const int highest = std::min(traced_.empty() ? 0 : traced_.front().target.layer, config_.layers - 1);
    for (int layer = highest; layer >= 0; --layer) {
      if (under_way > 0) {
        read_features(layer, under_way);
        if (layer < mapped_layers())
          map_mlp(layer, under_way);
        else
          pass_mlp(layer, under_way);
      }
      for (; under_way < traced_.size() && traced_[under_way].target.layer == layer; ++under_way)
        inject_feature(traced_[under_way]);
      pass_attention(layer, under_way);
      on_layer();
    }
    for (Traced& traced : traced_)
      dots(constants_.own_vector(traced.rows), record_.embeddings().rows(0, traced.rows), traced.rows_of(cotangent_),
           take(traced, Product::kTokens, 0, traced.rows));
    return collect();
  }

 private:
  const PromptRecord::Layer& recorded(int layer) const { return record_.layers()[static_cast<std::size_t>(layer)]; }
  std::int64_t end_of(std::size_t count) const { return count == 0 ? 0 : traced_[count - 1].end(); }
  float epsilon() const { return static_cast<float>(config_.norm_epsilon); }
  /// Active pairs of a layer at positions that a target sees.
  std::int64_t pairs_seen(int layer, const Traced& traced) const {
    const std::vector<std::int32_t>& offsets = recorded(layer).offsets;
    return offsets.empty() ? 0 : offsets[static_cast<std::size_t>(traced.rows)];
  }

  std::int64_t count_numbers() const {
    std::int64_t count = 0;
    for (const Traced& traced : traced_) {
      const int layer = traced.target.layer;
      for (int below = 0; below < layer; ++below) count += pairs_seen(below, traced);
      count += traced.rows * (2 * static_cast<std::int64_t>(layer) + 2);  // at most: biases, and the tokens
    }
    return count;
  }

  Tensor take(Traced& traced, Product product, int layer, std::int64_t count) {
    traced.pieces.push_back({product, layer, taken_, count});
    taken_ += count;
    return numbers_.tensor().rows(taken_ - count, taken_);
  }

  /// out_p = ⟨cotangent_t, vectors_i⟩ for pair p = (t, i)
  void dots(const SparseFeatures& pairs, const Tensor& vectors, const Tensor& cotangent, const Tensor& out) {
    sparse_feature_gradient(context_, pairs, vectors, cotangent, {constants_.zeros.rows(0, vectors.size(0)), 0.0f},
                            out);
  }

  void inject_logit(const Traced& traced) {
    const std::int64_t at = traced.target.position, vocabulary = config_.vocabulary;
    std::vector<float> chosen(static_cast<std::size_t>(vocabulary), -1.0f / static_cast<float>(vocabulary));
    chosen[static_cast<std::size_t>(traced.target.id)] += 1.0f;
    const DeviceView logits(context_, Tensor::of(std::span(chosen), {1, vocabulary}));
    decoder_.add_logits_cotangent(context_, workspace_, record_.last_state().rows(at, at + 1), kRelp, logits.tensor(),
                                  cotangent_.rows(traced.end() - 1, traced.end()));
    synchronize(context_);
  }

  /// The encoder's row at the layer's MLP input, through the norm before it.
  void inject_feature(const Traced& traced) {
    const auto& [layer, position, id, value, probability, pair] = traced.target;
    const Tensor& norm = decoder_.layer_weights(layer).mlp_norm.tensor();
    rms_norm_backward(context_, {recorded(layer).middle.rows(position, position + 1), norm, epsilon()},
                      model_.features(layer)->encoder.rows(id, id + 1), kRelp,
                      cotangent_.rows(traced.end() - 1, traced.end()));
  }

  void read_features(int layer, std::size_t count) {
    const AttributionModel::Features* features = model_.features(layer);
    if (features == nullptr) return;
    const SparseFeatures& active = recorded(layer).active;
    for (Traced& traced : std::span(traced_).first(count)) {
      const std::int64_t seen = pairs_seen(layer, traced);
      dots({active.offsets.rows(0, traced.rows + 1), active.features.rows(0, seen), active.activations.rows(0, seen)},
           features->decoder, traced.rows_of(cotangent_), take(traced, Product::kFeatures, layer, seen));
      dots(constants_.same_vector(traced.rows), features->decoder_bias, traced.rows_of(cotangent_),
           take(traced, Product::kDecoderBias, layer, traced.rows));
    }
  }

  int mapped_layers() const { return maps_ == nullptr ? 0 : maps_->layers(); }

  /// From the state after the MLP to the state before it, for the first `count` targets. Rows of the others are zero in
  /// both matrices.
  void map_mlp(int layer, std::size_t count) {
    const std::span<const Traced> passing = std::span(traced_).first(count);
    RowsByPosition by_position(passing, record_.tokens());
    const auto there = [&](std::vector<std::int32_t>& numbers) {
      return DeviceView(context_, Tensor::of(std::span(numbers), {static_cast<std::int64_t>(numbers.size())}));
    };
    const DeviceView offsets = there(by_position.offsets), rows = there(by_position.rows);
    map_rows(context_, {maps_->of(layer), offsets.tensor(), rows.tensor()}, cotangent_, mapped_);
    std::swap(cotangent_, mapped_);
    synchronize(context_);
  }

  /// The same without a map.
  void pass_mlp(int layer, std::size_t count) {
    const MlpWeights& weights = decoder_.mlp_weights(layer, MlpSource::kTarget);
    const Tensor inner = workspace_.of(Workspace::kNormedCotangent, {end_of(count), config_.width});
    for (std::int64_t begin = 0; begin < end_of(count); begin += kMlpRows) {
      const std::int64_t end = std::min(begin + kMlpRows, end_of(count));
      const Shape shape{end - begin, config_.mlp_width};
      const Tensor hidden = workspace_.of(Workspace::kHidden, shape);
      const GatedPair gradient{workspace_.of(Workspace::kGate, shape), workspace_.of(Workspace::kUp, shape)};
      matmul_backward(context_, cotangent_.rows(begin, end), weights.down, hidden);
      for (const Traced& traced : std::span(traced_).first(count)) gate(layer, traced, {begin, end}, hidden, gradient);
      matmul_backward(context_, gradient.gate, weights.gate, inner.rows(begin, end));
      const Tensor partial = workspace_.of(Workspace::kPartialCotangent, {end - begin, config_.width});
      matmul_backward(context_, gradient.up, weights.up, partial);
      add_to(context_, partial, inner.rows(begin, end));
    }
    const Tensor norm = decoder_.layer_weights(layer).mlp_norm.tensor();
    for (const Traced& traced : std::span(traced_).first(count))
      rms_norm_backward(context_, {recorded(layer).middle.rows(0, traced.rows), norm, epsilon()}, traced.rows_of(inner),
                        kRelp, traced.rows_of(cotangent_));
  }

  struct Span {
    std::int64_t begin, end;
  };
  /// The gated product's gradients for those of a target's rows that lie in `chunk`, whose rows the matrices hold.
  void gate(int layer, const Traced& traced, Span chunk, const Tensor& hidden, const GatedPair& gradient) {
    const std::int64_t begin = std::max(chunk.begin, traced.begin), end = std::min(chunk.end, traced.end());
    if (begin >= end) return;
    const auto in_chunk = [&](const Tensor& matrix) { return matrix.rows(begin - chunk.begin, end - chunk.begin); };
    const auto in_record = [&](const Tensor& matrix) { return matrix.rows(begin - traced.begin, end - traced.begin); };
    const MlpRecord& record = recorded(layer).mlp;
    swiglu_backward(context_, {in_record(record.gate), in_record(record.up)}, in_chunk(hidden), kRelp,
                    {in_chunk(gradient.gate), in_chunk(gradient.up)});
  }

  /// From the state after attention to the state before it, for the first `count` targets.
  void pass_attention(int layer, std::size_t count) {
    const AttentionWeights& weights = decoder_.layer_weights(layer).attention;
    const std::int64_t rows = end_of(count);
    const Tensor attended = workspace_.of(Workspace::kAttendedCotangent, {rows, config_.query_width()});
    const Tensor value = workspace_.of(Workspace::kValueCotangent, {rows, config_.key_width()});
    const Tensor normed = workspace_.of(Workspace::kNormedCotangent, {rows, config_.width});
    matmul_backward(context_, cotangent_.rows(0, rows), weights.out, attended);
    for (Traced& traced : std::span(traced_).first(count)) {
      move_to_values(layer, traced, traced.rows_of(attended), traced.rows_of(value));
      if (weights.value_bias.bytes() == 0) continue;
      dots(constants_.same_vector(traced.rows), weights.value_bias.tensor().reshaped({1, config_.key_width()}),
           traced.rows_of(value), take(traced, Product::kValueBias, layer, traced.rows));
    }
    matmul_backward(context_, value, weights.value, normed);
    for (const Traced& traced : std::span(traced_).first(count))
      rms_norm_backward(context_, {recorded(layer).before.rows(0, traced.rows), weights.norm.tensor(), epsilon()},
                        traced.rows_of(normed), kRelp, traced.rows_of(cotangent_));
  }

  /// Back through the attention weights, which are constants.
  void move_to_values(int layer, const Traced& traced, const Tensor& attended, const Tensor& value) {
    const AttentionRecord& record = recorded(layer).attention;
    const Shape queries{traced.rows, config_.heads, config_.head_width};
    const Shape keys{traced.rows, config_.kv_heads, config_.head_width};
    std::array<std::int32_t, 2> offsets{0, static_cast<std::int32_t>(traced.rows)};
    const auto seen = [&](const Tensor& matrix) { return matrix.rows(0, traced.rows); };
    causal_attention_backward(
        context_,
        {.query = seen(record.query).reshaped(queries),
         .key = seen(record.key).reshaped(keys),
         .value = seen(record.value).reshaped(keys),
         .offsets = Tensor::of(std::span<std::int32_t>(offsets), {2})},
        {.out = Tensor(), .log_sums = seen(record.log_sums), .cotangent = attended.reshaped(queries)}, kRelp,
        {.query = Tensor(), .key = Tensor(), .value = value.reshaped(keys)});
  }

  std::vector<Contributions> collect() {
    const std::vector<float> numbers = on_host<float>(context_, numbers_.tensor());
    std::vector<Contributions> all;
    for (const Traced& traced : traced_) {
      Contributions& made = all.emplace_back(Contributions{.target = traced.target, .features = {}, .tokens = {}});
      if (traced.target.layer < config_.layers)
        made.biases = static_cast<double>(
            model_.features(traced.target.layer)->encoder_bias[static_cast<std::size_t>(traced.target.id)]);
      std::int64_t features = 0;
      for (const Piece& piece : traced.pieces) features += piece.product == Product::kFeatures ? piece.count : 0;
      made.features.reserve(static_cast<std::size_t>(features));
      for (auto piece = traced.pieces.rbegin(); piece != traced.pieces.rend(); ++piece)  // lower layers first
        add(*piece,
            std::span(numbers).subspan(static_cast<std::size_t>(piece->begin), static_cast<std::size_t>(piece->count)),
            made);
    }
    return all;
  }

  void add(const Piece& piece, std::span<const float> numbers, Contributions& made) const {
    if (piece.product == Product::kDecoderBias || piece.product == Product::kValueBias) {
      made.biases = std::accumulate(numbers.begin(), numbers.end(), made.biases);
      return;
    }
    const bool is_features = piece.product == Product::kFeatures;
    const PromptRecord::Layer& record = recorded(piece.layer);
    const std::size_t first = is_features ? static_cast<std::size_t>(record.offsets[1]) : 1;
    std::vector<float>& kept = is_features ? made.features : made.tokens;
    for (std::size_t i = 0; i < numbers.size(); ++i) {
      const float contribution = is_features ? numbers[i] * record.activations[i] : numbers[i];
      if (i < first) {
        made.first_position += contribution;
        continue;
      }
      kept.push_back(contribution);
      made.sum += contribution;
    }
  }

  Context& context_;
  const AttributionModel& model_;
  const Decoder& decoder_;
  const DecoderConfig& config_;
  Workspace& workspace_;
  const PromptRecord& record_;
  const MlpMaps* maps_;
  const Constants& constants_;
  std::vector<Traced> traced_;
  Tensor cotangent_;  ///< [rows of all targets, D]
  Tensor mapped_;     ///< the same, where maps put it
  Buffer numbers_;
  std::int64_t taken_ = 0;
};

}  // namespace

AttributionPass::AttributionPass(Context& context, const AttributionModel& model, PromptMemory& memory,
                                 const PromptRecord& record, const MlpMaps* maps)
    : context_(context),
      model_(model),
      memory_(memory),
      record_(record),
      maps_(maps),
      counting_(context.device(), DType::kInt32, {record.tokens() + 1}),
      zeros_(context.device(), DType::kFloat32, {std::max(record.tokens(), model.most_features())}),
      ones_(context.device(), DType::kFloat32, {record.tokens()}) {
  std::vector<std::int32_t> numbers(static_cast<std::size_t>(record.tokens()) + 1);
  std::iota(numbers.begin(), numbers.end(), 0);
  std::vector<float> ones(static_cast<std::size_t>(record.tokens()), 1.0f);
  copy(context, Tensor::of(std::span(numbers), {record.tokens() + 1}), counting_.tensor());
  copy(context, Tensor::of(std::span(ones), {record.tokens()}), ones_.tensor());
  synchronize(context);
}

std::vector<Contributions> AttributionPass::run(std::span<const AttributionTarget> targets,
                                                const std::function<void()>& on_layer) {
  if (targets.empty()) return {};
  const Constants constants{counting_.tensor(), zeros_.tensor(), ones_.tensor()};
  return Backward(context_, model_, {memory_, record_, maps_}, constants, targets).run(on_layer);
}

std::int64_t AttributionPass::bytes(const DecoderConfig& config, std::int64_t targets, std::int64_t tokens) {
  const std::int64_t rows = targets * tokens;
  const std::int64_t each = 3 * config.width + config.query_width() + config.key_width();
  const std::int64_t chunk = std::min(rows, kMlpRows) * (3 * config.mlp_width + config.width);
  return (rows * each + chunk + config.vocabulary) * static_cast<std::int64_t>(sizeof(float));
}

}  // namespace tadapt

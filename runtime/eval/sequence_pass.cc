#include "runtime/eval/sequence_pass.h"

#include <algorithm>
#include <cmath>

#include "kernels/core/memory.h"
#include "kernels/features.h"
#include "kernels/losses.h"

namespace tadapt {
namespace {

constexpr double kUncertainBelow = 0.8;  // the target's top probability, method.md's "uncertain tokens"

}  // namespace

std::string SequenceFields::non_finite(std::span<const double> sums) const {
  constexpr const char* kPasses[kPerState] = {"target", "hybrid", "adapter model"};
  for (std::size_t pass = 0; pass < kPerState; ++pass) {
    for (std::size_t i = 0; i < states; ++i) {
      if (std::isfinite(sums[state(i) + pass])) continue;
      return i == 0 ? std::string("the embeddings are")
                    : fmt::format("the residual stream of the {} after layer {} is", kPasses[pass], i - 1);
    }
  }
  for (std::size_t place = 0; place < layers.size(); ++place) {
    const auto of_layer = sums.subspan(layer(place), kPerLayer);
    if (!std::ranges::all_of(of_layer, [](double sum) { return std::isfinite(sum); }))
      return fmt::format("base MLP or adapter of layer {}, at the target's input, are", layers[place]);
  }
  for (std::size_t model = 0; model < models.size(); ++model) {
    const auto of_model = sums.subspan(agreement(model), kPerModel);
    if (!std::ranges::all_of(of_model, [](double sum) { return std::isfinite(sum); }))
      return fmt::format("logits of the target, or those of \"{}\", are", models[model]);
  }
  return "";
}

/// What is measured lies where the context computes until the models have run.
struct SequencePass::Batch {
  const TokenBatch& tokens;
  const std::vector<std::int64_t>& response_starts;
  std::vector<double> sums;
  Buffer mlp_in, base_out, delta;  ///< [T, D]
  Buffer rows;                     ///< [fields from first_of_rows(), T] float64
  Buffer active;                   ///< [layers, T] int32: active features, later the rows of a layer's third field

  Batch(Device device, const TokenBatch& batch, const std::vector<std::int64_t>& starts, const SequenceFields& fields)
      : tokens(batch),
        response_starts(starts),
        sums(fields.count() * static_cast<std::size_t>(batch.sequences()), 0.0),
        mlp_in(device, DType::kFloat32, {batch.tokens(), fields.width}),
        base_out(device, DType::kFloat32, {batch.tokens(), fields.width}),
        delta(device, DType::kFloat32, {batch.tokens(), fields.width}),
        rows(device, DType::kFloat64,
             {static_cast<std::int64_t>(fields.count() - fields.first_of_rows()), batch.tokens()}),
        active(device, DType::kInt32, {static_cast<std::int64_t>(fields.layers.size()), batch.tokens()}),
        first_(fields.first_of_rows()) {}

  /// Where the numbers of one field go, [T].
  Tensor rows_of(std::size_t field) const { return row(rows, field - first_); }
  Tensor active_of(std::size_t place) const { return row(active, place); }

 private:
  static Tensor row(const Buffer& buffer, std::size_t index) {
    const auto at = static_cast<std::int64_t>(index);
    return buffer.tensor().rows(at, at + 1).reshaped({buffer.tensor().size(1)});
  }
  std::size_t first_;
};

SequencePass::SequencePass(Context& context, const FaithfulnessModels& models, const FaithfulnessOptions& options)
    : context_(context),
      models_(models),
      options_(options),
      runner_(context, models.pair),
      workspace_(context.device()) {
  const int layers = models.pair.config().layers;
  target_ = uniform_splice(layers, {MlpSource::kTarget, nullptr});
  hybrid_ = uniform_splice(layers, {MlpSource::kBase, nullptr});
  adapter_ = models.adapters.splice(layers, 0, layers);
  if (models.base != nullptr) fields_.models.emplace_back("base");
  fields_.models.emplace_back("hybrid");
  fields_.models.emplace_back("adapter");
  fields_.main_models = fields_.models.size();
  if (options.partial == FaithfulnessOptions::Partial::kAll) {
    for (int k = 0; k < layers; ++k) fields_.models.push_back(fmt::format("only layer {}", k));
    for (int k = 1; k <= layers; ++k) fields_.models.push_back(fmt::format("first {}", k));
    for (int k = 1; k <= layers; ++k) fields_.models.push_back(fmt::format("last {}", k));
  }
  fields_.states = static_cast<std::size_t>(layers) + 1;
  fields_.layers = models.adapters.layers();
  fields_.width = models.pair.config().width;
  for (const int layer : fields_.layers) {
    const std::int64_t features = models.adapters.shape(layer).features;
    batch_active_.emplace_back(context.device(), DType::kFloat32, Shape{features});
    active_.emplace_back(static_cast<std::size_t>(features), 0.0);
  }
}

std::vector<double> SequencePass::run(const TokenBatch& batch, const std::vector<std::int64_t>& response_starts) {
  Batch work(context_.device(), batch, response_starts, fields_);
  compare_models(work);
  return std::move(work.sums);
}

void SequencePass::compare_models(Batch& work) {
  const int layers = models_.pair.config().layers;
  const std::vector<Segment> segments = {{.splice = target_, .begin = 0, .end = layers},
                                         {.splice = hybrid_, .begin = 0, .end = layers},
                                         {.splice = adapter_, .begin = 0, .end = layers}};
  RunReads reads;
  for (int segment = 0; segment < 3; ++segment)
    for (int layer = 0; layer <= layers; ++layer) reads.keep.push_back({segment, layer});
  reads.observe = [&](const Reading& reading) {
    if (reading.segment != 0 || !models_.adapters.has(reading.layer)) return;
    if (reading.point == ReadPoint::kMlpIn)
      copy(context_, reading.values, work.mlp_in.tensor());
    else if (reading.point == ReadPoint::kMlpOut)
      measure_delta(work, reading.layer, reading.values);
  };
  models_.adapters.listen([&](int layer, const TokenBatch&, const Tensor& a) { count_active(work, layer, a); });
  const ResidualStates states = runner_.run(segments, work.tokens, reads);
  models_.adapters.listen({});
  compare_states(work, states);
  add_rows(work);

  std::vector<LogitsSource> sources = {{&models_.pair, states.at({0, layers})}};
  ResidualStates base_states;
  if (models_.base != nullptr) {
    SegmentRunner base_runner(context_, *models_.base);
    const std::vector<Segment> base = {
        {.splice = uniform_splice(layers, {}), .begin = 0, .end = models_.base->config().layers}};
    base_states = base_runner.run(base, work.tokens, {.keep = {{0, layers}}, .observe = {}});
    sources.push_back({models_.base, base_states.at({0, layers})});
  }
  sources.push_back({&models_.pair, states.at({1, layers})});
  sources.push_back({&models_.pair, states.at({2, layers})});
  compare_logits(work, sources, 0);
  if (fields_.models.size() > fields_.main_models) compare_partial(work, states.at({0, layers}));
}

void SequencePass::measure_delta(Batch& work, int layer, const Tensor& target_mlp_out) {
  const std::size_t at = fields_.layer(place_of(layer));
  const Tensor delta = work.delta.tensor();
  models_.pair.mlp(context_, workspace_, layer, MlpSource::kBase, work.mlp_in.tensor(), work.base_out.tensor());
  // The gradient of a squared error with scale 1 is the difference itself: Δ, and its rows' ‖Δ‖².
  squared_error(context_, target_mlp_out, work.base_out.tensor(), 1.0f, delta, work.rows_of(at + 1));
  const Tensor branch = models_.adapters.output(context_, layer, work.mlp_in.tensor());
  squared_error(context_, branch, delta, 0.0f, Tensor(), work.rows_of(at));
}

void SequencePass::count_active(Batch& work, int layer, const Tensor& activations) {
  const std::size_t place = place_of(layer);
  l0(context_, activations, work.active_of(place));
  active_counts(context_, activations, batch_active_[place].tensor());
}

void SequencePass::compare_states(Batch& work, const ResidualStates& states) {
  for (std::size_t state = 0; state < fields_.states; ++state) {
    const int layer = static_cast<int>(state);
    const Tensor target = states.at({0, layer});
    const std::size_t at = fields_.state(state);
    row_square_norms(context_, target, work.rows_of(at));
    for (int model = 1; model <= 2; ++model)
      squared_error(context_, states.at({model, layer}), target, 0.0f, Tensor(),
                    work.rows_of(at + static_cast<std::size_t>(model)));
  }
}

/// Adds the rows of each sequence to its sums, in row order, and this batch's active features to all.
void SequencePass::add_rows(Batch& work) {
  const auto tokens = static_cast<std::size_t>(work.tokens.tokens());
  std::vector<double> rows = on_host<double>(context_, work.rows.tensor());
  const std::vector<std::int32_t> active = on_host<std::int32_t>(context_, work.active.tensor());
  const std::size_t first = fields_.first_of_rows();
  for (std::size_t place = 0; place < fields_.layers.size(); ++place) {
    std::copy_n(&active[place * tokens], tokens, &rows[(fields_.layer(place) + 2 - first) * tokens]);
    const std::vector<float> counted = on_host<float>(context_, batch_active_[place].tensor());
    for (std::size_t i = 0; i < counted.size(); ++i) active_[place][i] += static_cast<double>(counted[i]);
  }
  for (std::size_t field = first; field < fields_.count(); ++field)
    for (std::size_t b = 0; b + 1 < work.tokens.offsets.size(); ++b)
      for (auto row = static_cast<std::size_t>(work.tokens.offsets[b]);
           row < static_cast<std::size_t>(work.tokens.offsets[b + 1]); ++row)
        work.sums[b * fields_.count() + field] += rows[(field - first) * tokens + row];
}

void SequencePass::compare_logits(Batch& work, const std::vector<LogitsSource>& sources, std::size_t first_model) {
  const std::int64_t rows = work.tokens.tokens();
  const auto tokens = static_cast<std::size_t>(rows);
  const std::size_t models = sources.size() - 1;
  const Shape all{static_cast<std::int64_t>(models), rows};
  const Buffer kls(context_.device(), DType::kFloat64, all), choices(context_.device(), DType::kInt32, all),
      target_choices(context_.device(), DType::kInt32, {rows}), confidences(context_.device(), DType::kFloat32, {rows});
  for_each_logits_chunk(context_, sources, options_.logits_budget_bytes, [&](const LogitsChunk& chunk) {
    for (std::size_t m = 0; m < models; ++m) {
      const std::int64_t at = static_cast<std::int64_t>(m) * rows;
      const auto of_model = [&](const Buffer& buffer) {
        return buffer.tensor().reshaped({all.elements()}).rows(at + chunk.begin, at + chunk.end);
      };
      token_kl(context_, chunk.logits[0], chunk.logits[m + 1],
               {.kl = of_model(kls),
                .target_argmax = target_choices.tensor().rows(chunk.begin, chunk.end),
                .argmax = of_model(choices),
                .target_top_probability = confidences.tensor().rows(chunk.begin, chunk.end)});
    }
  });
  const std::vector<double> kl = on_host<double>(context_, kls.tensor());
  const std::vector<std::int32_t> choice = on_host<std::int32_t>(context_, choices.tensor());
  const std::vector<std::int32_t> target_choice = on_host<std::int32_t>(context_, target_choices.tensor());
  const std::vector<float> confidence = on_host<float>(context_, confidences.tensor());
  for (int b = 0; b < work.tokens.sequences(); ++b) {
    const auto sequence = static_cast<std::size_t>(b);
    const auto begin = static_cast<std::size_t>(work.tokens.offsets[sequence]);
    const auto end = static_cast<std::size_t>(work.tokens.offsets[sequence + 1]);
    const std::size_t response = begin + static_cast<std::size_t>(work.response_starts[sequence]);
    for (std::size_t m = 0; m < models; ++m) {
      double* fields = &work.sums[sequence * fields_.count() + fields_.agreement(first_model + m)];
      for (std::size_t row = begin; row + 1 < end; ++row) {
        const bool in_response = row + 1 >= response;
        const bool counts[3] = {true, in_response,
                                in_response && static_cast<double>(confidence[row]) <= kUncertainBelow};
        for (std::size_t set = 0; set < 3; ++set) {
          if (!counts[set]) continue;
          fields[3 * set] += 1.0;
          fields[3 * set + 1] += kl[m * tokens + row];
          fields[3 * set + 2] += choice[m * tokens + row] != target_choice[row] ? 1.0 : 0.0;
        }
      }
    }
  }
}

void SequencePass::compare_partial(Batch& work, const Tensor& target_final) {
  const int layers = models_.pair.config().layers;
  // Segments 0 and 1 are the target and the adapter model; each replacement starts from one of their states.
  std::vector<Segment> segments = {{.splice = target_, .begin = 0, .end = layers},
                                   {.splice = adapter_, .begin = 0, .end = layers}};
  for (int k = 0; k < layers; ++k)
    segments.push_back({.splice = models_.adapters.splice(layers, k, k + 1), .begin = k, .end = layers, .source = 0});
  for (int k = 1; k <= layers; ++k) segments.push_back({.splice = target_, .begin = k, .end = layers, .source = 1});
  for (int k = 1; k <= layers; ++k)
    segments.push_back({.splice = models_.adapters.splice(layers, layers - k, layers),
                        .begin = layers - k,
                        .end = layers,
                        .source = 0});
  RunReads reads;
  for (int i = 2; i < static_cast<int>(segments.size()); ++i) reads.keep.push_back({i, layers});
  const ResidualStates states = runner_.run(segments, work.tokens, reads);
  // A few models at a time: the target's logits are made again for each group, but few logits are held at once.
  constexpr std::size_t kTogether = 4;
  for (std::size_t first = 2; first < segments.size(); first += kTogether) {
    std::vector<LogitsSource> sources = {{&models_.pair, target_final}};
    for (std::size_t i = first; i < std::min(first + kTogether, segments.size()); ++i)
      sources.push_back({&models_.pair, states.at({static_cast<int>(i), layers})});
    compare_logits(work, sources, fields_.main_models + first - 2);
  }
}

std::size_t SequencePass::place_of(int layer) const {
  return static_cast<std::size_t>(std::ranges::find(fields_.layers, layer) - fields_.layers.begin());
}

}  // namespace tadapt

#include "runtime/analysis/feature_store.h"

namespace tadapt {
namespace {

using Json = nlohmann::ordered_json;

template <class T>
Column column(std::string name, std::vector<T>& values) {
  return {std::move(name), Tensor::of(std::span(values), {static_cast<std::int64_t>(values.size())})};
}

template <class T>
Column table(std::string name, std::vector<T>& values, std::int64_t columns) {
  return {std::move(name),
          Tensor::of(std::span(values), {static_cast<std::int64_t>(values.size()) / columns, columns})};
}

template <class T>
void append(std::vector<T>& to, std::span<const T> more) {
  to.insert(to.end(), more.begin(), more.end());
}

/// The examples of a layer, one after the other.
struct ExampleColumns {
  std::vector<std::int64_t> begin{0}, sequence, near_begin{0};
  std::vector<std::int32_t> tops, position, region_offset;
  std::vector<std::int8_t> region, near_offset;
  std::vector<float> activation, near_activation;

  void add(const std::vector<Example>& examples, const MarkedCorpus& corpus) {
    for (const Example& example : examples) {
      const std::int64_t index = corpus.index_of(example.sequence);
      sequence.push_back(example.sequence);
      position.push_back(example.position);
      activation.push_back(example.activation);
      region.push_back(
          static_cast<std::int8_t>(corpus.places(index)[static_cast<std::size_t>(example.position)].region));
      region_offset.push_back(corpus.region_offset(index, example.position));
      for (const NearActivation& near : example.near) {
        near_offset.push_back(near.offset);
        near_activation.push_back(near.activation);
      }
      near_begin.push_back(static_cast<std::int64_t>(near_offset.size()));
    }
  }
};

}  // namespace

Json FeatureStoreWriter::write_layer(const LayerRecords& records, std::span<const std::int32_t> ids,
                                     const LensTable& lens, const MarkedCorpus& corpus) const {
  std::vector<std::int64_t> active, by_domain, by_region, by_thinking, histogram;
  ExampleColumns examples;
  std::vector<std::int64_t> contrast_begin{0};
  std::vector<std::int32_t> contrast;
  for (std::int64_t feature = 0; feature < records.features(); ++feature) {
    const FeatureCounts counts = records.counts(feature);
    active.push_back(counts.active);
    append(by_domain, counts.by_domain);
    append(by_region, counts.by_region);
    append(by_thinking, counts.by_thinking);
    append(histogram, counts.histogram);
    const std::vector<Example> top = records.top(feature);
    examples.tops.push_back(static_cast<std::int32_t>(top.size()));
    examples.add(top, corpus);
    examples.add(records.sampled(feature), corpus);
    examples.begin.push_back(static_cast<std::int64_t>(examples.sequence.size()));
    append<std::int32_t>(contrast, records.contrast(feature));
    contrast_begin.push_back(static_cast<std::int64_t>(contrast.size()));
  }
  std::vector<std::int32_t> id(ids.begin(), ids.end());
  LensTable shown = lens;
  const std::vector<Column> columns = {column("id", id),
                                       column("active", active),
                                       table("by_domain", by_domain, records.domains()),
                                       table("by_region", by_region, static_cast<std::int64_t>(kRegionNames.size())),
                                       table("by_thinking", by_thinking, kThinkingBins),
                                       table("histogram", histogram, kHistogramBins),
                                       table("lens/top_id", shown.top_ids, shown.tokens),
                                       table("lens/top_logit", shown.top_logits, shown.tokens),
                                       table("lens/bottom_id", shown.bottom_ids, shown.tokens),
                                       table("lens/bottom_logit", shown.bottom_logits, shown.tokens),
                                       column("examples/begin", examples.begin),
                                       column("examples/top", examples.tops),
                                       column("examples/sequence", examples.sequence),
                                       column("examples/position", examples.position),
                                       column("examples/region", examples.region),
                                       column("examples/region_offset", examples.region_offset),
                                       column("examples/activation", examples.activation),
                                       column("examples/near_begin", examples.near_begin),
                                       column("near/offset", examples.near_offset),
                                       column("near/activation", examples.near_activation),
                                       column("contrast/begin", contrast_begin),
                                       column("contrast/window", contrast)};
  return {{"layer", records.layer()},
          {"features", records.features()},
          {"listing", write_columns(files, directory / fmt::format("layer-{:03d}.h5", records.layer()), columns)}};
}

Json FeatureStoreWriter::write_tokens(const MarkedCorpus& corpus, std::span<const ContrastWindow> contrast,
                                      const Tokenizer& tokenizer) const {
  std::vector<std::int64_t> number, line, begin{0}, text_begin{0}, window_sequence;
  std::vector<std::int32_t> domain, id, window_position;
  std::vector<std::int8_t> region, text;
  for (std::int64_t index = 0; index < corpus.size(); ++index) {
    const TokenSequence sequence = corpus.sequence(index);
    number.push_back(corpus.number(index));
    line.push_back(sequence.line);
    domain.push_back(sequence.domain);
    append(id, sequence.ids);
    for (const TokenPlace& place : corpus.places(index)) region.push_back(static_cast<std::int8_t>(place.region));
    begin.push_back(static_cast<std::int64_t>(id.size()));
  }
  for (std::int32_t token = 0; token < tokenizer.vocabulary_size(); ++token) {
    for (const char byte : tokenizer.token_bytes(token)) text.push_back(static_cast<std::int8_t>(byte));
    text_begin.push_back(static_cast<std::int64_t>(text.size()));
  }
  for (const auto& [sequence, position] : contrast) {
    window_sequence.push_back(sequence);
    window_position.push_back(position);
  }
  const std::vector<Column> columns = {column("sequences/number", number),
                                       column("sequences/line", line),
                                       column("sequences/domain", domain),
                                       column("sequences/begin", begin),
                                       column("tokens/id", id),
                                       column("tokens/region", region),
                                       column("vocabulary/begin", text_begin),
                                       column("vocabulary/bytes", text),
                                       column("contrast/sequence", window_sequence),
                                       column("contrast/position", window_position)};
  return write_columns(files, directory / "tokens.h5", columns);
}

void FeatureStoreWriter::finish(const FeatureStoreDescription& description, const Json& layers,
                                const Json& tokens) const {
  Json json = description.to_json();
  json["layers"] = layers;
  json["tokens"] = tokens;
  write_atomically(files, directory / kFeatureStoreFile, json.dump(1) + "\n");
}

}  // namespace tadapt

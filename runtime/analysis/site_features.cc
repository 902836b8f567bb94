#include "runtime/analysis/site_features.h"

#include <algorithm>

#include "runtime/analysis/site_chunk.h"

namespace tadapt {
namespace {

using Json = nlohmann::ordered_json;

void append(std::vector<std::int64_t>& to, std::span<const std::int64_t> more) {
  to.insert(to.end(), more.begin(), more.end());
}

/// Columns of logit lenses.
struct LensColumns {
  std::vector<std::int64_t> id;
  std::vector<float> logit;

  void add(const std::vector<LensToken>& tokens) {
    for (const LensToken& token : tokens) {
      id.push_back(token.id);
      logit.push_back(token.logit);
    }
  }
  Json to_json() const { return {{"id", site_column(id)}, {"logit", site_column(logit)}}; }
};

/// Columns of examples, and of the activations near them: those of feature i begin at `begin`_i.
class ExampleColumns {
 public:
  ExampleColumns(const StoredTokens& tokens, int layer) : tokens_(tokens), layer_(layer) {}

  void add(const StoredFeature& feature) {
    top_.push_back(static_cast<std::int64_t>(feature.top.size()));
    add(feature.top, feature.id);
    add(feature.sampled, feature.id);
    begin_.push_back(static_cast<std::int64_t>(sequence_.size()));
  }

  Json to_json() const {
    return {{"begin", site_column(begin_)},
            {"top", site_column(top_)},
            {"sequence", site_column(sequence_)},
            {"position", site_column(position_)},
            {"region", site_column(region_)},
            {"activation", site_column(activation_)},
            {"near_begin", site_column(near_begin_)},
            {"near_place", site_column(near_place_)},
            {"near_activation", site_column(near_activation_)}};
  }

 private:
  void add(const std::vector<StoredExample>& examples, std::int32_t feature) {
    for (const StoredExample& example : examples) {
      const std::int64_t index = tokens_.index_of(example.sequence);
      const auto length = static_cast<std::int64_t>(tokens_.sequence(index).ids.size());
      if (example.position < 0 || example.position >= length)
        throw DataError("feature store: an example of feature {} of layer {} at token {} of the {} of conversation {}",
                        feature, layer_, example.position, length, example.sequence);
      sequence_.push_back(index);
      position_.push_back(example.position);
      region_.push_back(static_cast<std::int64_t>(example.region));
      activation_.push_back(example.activation);
      for (const NearActivation& near : example.near) {
        near_place_.push_back(near.offset + kTokensBefore);
        near_activation_.push_back(near.activation);
      }
      near_begin_.push_back(static_cast<std::int64_t>(near_place_.size()));
    }
  }

  const StoredTokens& tokens_;
  int layer_;
  std::vector<std::int64_t> begin_{0}, top_, sequence_, position_, region_, near_begin_{0}, near_place_;
  std::vector<float> activation_, near_activation_;
};

/// A score that does not exist is null.
Json label_json(const FeatureLabel& label, std::int64_t class_number) {
  Json json = {{"class", class_number}, {"description", label.description}};
  if (label.detection) json["detection"] = {label.detection->balanced_top(), label.detection->balanced_uniform()};
  return json;
}

}  // namespace

Json features_chunk(const StoredLayer& layer, std::int64_t first, const StoredTokens& tokens, const SiteLabels& labels,
                    const GraphNeighbours& neighbours) {
  std::vector<std::int64_t> id, active, by_domain, by_region, by_thinking, histogram;
  LensColumns promoted, suppressed;
  ExampleColumns examples(tokens, layer.layer());
  Json edges = Json::object(), said = Json::object();
  const std::int64_t end = std::min(first + kFeaturesAChunk, layer.features());
  for (std::int64_t i = first; i < end; ++i) {
    const StoredFeature feature = layer.feature(i);
    id.push_back(feature.id);
    active.push_back(feature.counts.active);
    append(by_domain, feature.counts.by_domain);
    append(by_region, feature.counts.by_region);
    append(by_thinking, feature.counts.by_thinking);
    append(histogram, feature.counts.histogram);
    promoted.add(feature.promoted);
    suppressed.add(feature.suppressed);
    examples.add(feature);
    const std::string name = std::to_string(feature.id);
    if (Json beside = neighbours.of(layer.layer(), feature.id); !beside.is_null()) edges[name] = std::move(beside);
    if (const FeatureLabel* label = labels.find(layer.layer(), feature.id); label != nullptr)
      said[name] = label_json(*label, labels.class_number(layer.layer(), feature.id));
  }
  return {{"id", site_column(id)},
          {"active", site_column(active)},
          {"by_domain", site_column(by_domain)},
          {"by_region", site_column(by_region)},
          {"by_thinking", site_column(by_thinking)},
          {"histogram", site_column(histogram)},
          {"promoted", promoted.to_json()},
          {"suppressed", suppressed.to_json()},
          {"examples", examples.to_json()},
          {"edges", std::move(edges)},
          {"labels", std::move(said)}};
}

Json sequences_chunk(const StoredTokens& tokens) {
  std::vector<std::int64_t> number, line, domain, begin{0};
  for (std::int64_t i = 0; i < tokens.size(); ++i) {
    const StoredTokens::Sequence sequence = tokens.sequence(i);
    number.push_back(sequence.number);
    line.push_back(sequence.line);
    domain.push_back(sequence.domain);
    begin.push_back(begin.back() + static_cast<std::int64_t>(sequence.ids.size()));
  }
  return {{"number", site_column(number)},
          {"line", site_column(line)},
          {"domain", site_column(domain)},
          {"begin", site_column(begin)}};
}

Json vocabulary_chunk(const StoredTokens& tokens) {
  Json texts = Json::array();
  for (std::int32_t id = 0; id < tokens.vocabulary_size(); ++id) texts.push_back(tokens.text(id));
  return texts;
}

Json tokens_chunk(const StoredTokens& tokens, std::int64_t first) {
  const std::span<const std::int32_t> all = tokens.ids();
  const auto begin = static_cast<std::size_t>(first);
  const auto ids = all.subspan(begin, std::min<std::size_t>(kTokensAChunk, all.size() - begin));
  return site_column(std::vector<std::int64_t>(ids.begin(), ids.end()));
}

}  // namespace tadapt

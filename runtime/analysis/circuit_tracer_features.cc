#include "runtime/analysis/circuit_tracer_features.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "data/gzip.h"
#include "runtime/analysis/byte_codec.h"
#include "runtime/train/agreement.h"

namespace tadapt {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

constexpr char kFolder[] = "features";
constexpr int kShownBins = 40;

/// Half-octave counts as circuit-tracer shows them, a bin's activations spread evenly over it.
class Distribution {
 public:
  explicit Distribution(std::span<const std::int64_t> counts) : counts_(counts) {}

  /// Equal bins from 0 to `largest`.
  Json histogram(float largest) const {
    Json bins = Json::array();
    const auto edge = [&](int bin) { return static_cast<double>(largest) * bin / kShownBins; };
    for (int bin = 0; bin < kShownBins; ++bin) bins.push_back(below(edge(bin + 1)) - below(edge(bin)));
    return bins;
  }
  /// Of 1 to 99 percent; none of a dead feature.
  Json percentiles() const {
    const double total = below(HUGE_VAL);
    Json values = Json::array();
    double before = 0.0;
    int percent = 1;
    for (int bin = 0; bin < kHistogramBins && total > 0.0; ++bin) {
      const auto count = static_cast<double>(counts_[static_cast<std::size_t>(bin)]);
      for (; percent < 100 && total * percent <= 100.0 * (before + count); ++percent)
        values.push_back(begin(bin) + (end(bin) - begin(bin)) * (total * percent / 100.0 - before) / count);
      before += count;
    }
    return values;
  }

 private:
  static double begin(int bin) { return bin == 0 ? 0.0 : static_cast<double>(histogram_edge(bin)); }
  static double end(int bin) { return static_cast<double>(histogram_edge(bin + 1)); }
  double below(double activation) const {
    double sum = 0.0;
    for (int bin = 0; bin < kHistogramBins; ++bin)
      sum += static_cast<double>(counts_[static_cast<std::size_t>(bin)]) *
             std::clamp((activation - begin(bin)) / (end(bin) - begin(bin)), 0.0, 1.0);
    return sum;
  }
  std::span<const std::int64_t> counts_;
};

/// A float as the shortest number that reads back as it.
double shortest(float number) { return std::strtod(fmt::format("{}", number).c_str(), nullptr); }

class Exporter {
 public:
  Exporter(const FeatureStore& store, const StoredTokens& tokens) : store_(store), tokens_(tokens) {}

  Json feature_json(int layer, const StoredFeature& feature) const {
    const FeatureStoreDescription& from = store_.description();
    const std::int64_t number = cantor(layer, feature.id);
    const float largest = feature.top.empty() ? 0.0f : feature.top.front().activation;
    const Distribution distribution(feature.counts.histogram);
    Json json = {{"layer", layer},
                 {"feature", feature.id},
                 {"index", number},
                 {"transcoder_id", fmt::format("layer {}", layer)},
                 {"top_logits", texts(feature.promoted)},
                 {"bottom_logits", texts(feature.suppressed)},
                 {"act_min", 0.0},
                 {"act_max", shortest(largest)},
                 {"activation_frequency", share(feature.counts.active, from.totals.tokens)},
                 {"quantile_values", distribution.percentiles()},
                 {"histogram", distribution.histogram(largest)}};
    json["examples_quantiles"] = {{{"quantile_name", "Top activations"}, {"examples", examples(feature.top)}},
                                  {{"quantile_name", "Random activations"}, {"examples", examples(feature.sampled)}}};
    return json;
  }

  /// Densities and shares of a layer, one entry a feature.
  Json metadata(const StoredLayer& layer) const {
    const FeatureStoreDescription& from = store_.description();
    Json json = {{"layer", layer.layer()},      {"feature", Json::array()},   {"active", Json::array()},
                 {"density", Json::array()},    {"by_domain", Json::array()}, {"by_region", Json::array()},
                 {"by_thinking", Json::array()}};
    for (std::int64_t i = 0; i < layer.features(); ++i) {
      const StoredFeature feature = layer.feature(i);
      json["feature"].push_back(feature.id);
      json["active"].push_back(feature.counts.active);
      json["density"].push_back(share(feature.counts.active, from.totals.tokens));
      json["by_domain"].push_back(shares(feature.counts.by_domain, feature.counts.active));
      json["by_region"].push_back(shares(feature.counts.by_region, feature.counts.active));
      json["by_thinking"].push_back(shares(feature.counts.by_thinking, feature.counts.active));
    }
    return json;
  }

 private:
  static double share(std::int64_t part, std::int64_t whole) {
    return whole == 0 ? 0.0 : static_cast<double>(part) / static_cast<double>(whole);
  }
  static Json shares(std::span<const std::int64_t> parts, std::int64_t whole) {
    Json json = Json::array();
    for (const std::int64_t part : parts) json.push_back(share(part, whole));
    return json;
  }

  Json texts(const std::vector<LensToken>& tokens) const {
    Json json = Json::array();
    for (const LensToken& token : tokens) json.push_back(tokens_.text(token.id));
    return json;
  }

  Json examples(const std::vector<StoredExample>& examples) const {
    Json json = Json::array();
    for (const StoredExample& example : examples) {
      const StoredTokens::Sequence sequence = tokens_.with_number(example.sequence);
      const auto length = static_cast<std::int64_t>(sequence.ids.size());
      if (example.position < 0 || example.position >= length)
        throw DataError("{}: an example at token {} of the {} of conversation {}", store_.directory().string(),
                        example.position, length, example.sequence);
      const std::int64_t begin = std::max<std::int64_t>(0, example.position - kTokensBefore);
      const std::int64_t end = std::min<std::int64_t>(length, example.position + 1 + kTokensAfter);
      Json tokens = Json::array();
      std::vector<double> activations(static_cast<std::size_t>(end - begin), 0.0);
      for (std::int64_t i = begin; i < end; ++i)
        tokens.push_back(tokens_.text(sequence.ids[static_cast<std::size_t>(i)]));
      for (const NearActivation& near : example.near)
        if (const std::int64_t at = example.position + near.offset; begin <= at && at < end)
          activations[static_cast<std::size_t>(at - begin)] = shortest(near.activation);
      json.push_back({{"tokens", tokens},
                      {"tokens_acts_list", activations},
                      {"train_token_ind", example.position - begin},
                      {"is_repeated_datapoint", false}});
    }
    return json;
  }

  const FeatureStore& store_;
  const StoredTokens& tokens_;
};

/// The layer's bytes, and where each feature begins in them.
std::string packed(const Exporter& exporter, const StoredLayer& layer, Json& offsets) {
  std::string bytes;
  std::int64_t next = 0;
  offsets.push_back(0);
  for (std::int64_t i = 0; i < layer.features(); ++i) {
    const StoredFeature feature = layer.feature(i);
    // Readers count features from 0: those that are not in the store are dead.
    for (; next < feature.id; ++next) offsets.push_back(bytes.size());
    if (feature.counts.active > 0) {
      const std::string text = gzip(exporter.feature_json(layer.layer(), feature).dump());
      append_bytes(bytes, static_cast<std::uint32_t>(text.size()));
      bytes += text;
    }
    offsets.push_back(bytes.size());
    ++next;
  }
  return bytes;
}

void write_json_files(FileSystem& files, const Exporter& exporter, const StoredLayer& layer, const fs::path& folder) {
  for (std::int64_t i = 0; i < layer.features(); ++i) {
    const StoredFeature feature = layer.feature(i);
    if (feature.counts.active == 0) continue;
    write_atomically(files, folder / fmt::format("{}.json", cantor(layer.layer(), feature.id)),
                     exporter.feature_json(layer.layer(), feature).dump());
  }
}

}  // namespace

std::int64_t cantor(std::int64_t layer, std::int64_t feature) {
  return (layer + feature) * (layer + feature + 1) / 2 + feature;
}

void export_circuit_tracer(const FeatureStore& store, CircuitTracerFiles kind, const fs::path& out,
                           const RunEnvironment& environment) {
  FileSystem& files = environment.files;
  const fs::path folder = out / kFolder;
  std::string mine;  // a line a layer: its number, index and metadata
  agree(environment.world, [&] {
    files.make_directories(folder);
    const StoredTokens tokens = store.tokens();
    const Exporter exporter(store, tokens);
    const std::vector<int> layers = store.layers();
    for (auto i = static_cast<std::size_t>(environment.world.rank()); i < layers.size();
         i += static_cast<std::size_t>(environment.world.size())) {
      environment.heartbeat("writing circuit-tracer's files");
      const StoredLayer layer = store.layer(layers[i]);
      Json index = {{"filename", fmt::format("layer_{}.bin", layer.layer())}, {"offsets", Json::array()}};
      if (kind == CircuitTracerFiles::kPacked)
        write_atomically(files, folder / index["filename"].get<std::string>(),
                         packed(exporter, layer, index["offsets"]));
      else
        write_json_files(files, exporter, layer, folder);
      mine += Json{{"index", index}, {"metadata", exporter.metadata(layer)}}.dump() + "\n";
    }
  });
  const std::vector<std::string> all = environment.world.all_gather_text(mine, "circuit-tracer's index");
  on_rank_zero(environment.world, [&] {
    std::map<int, Json> layers;
    for (const std::string& text : all) {
      for (std::size_t begin = 0, end; (end = text.find('\n', begin)) != text.npos; begin = end + 1) {
        const Json entry = Json::parse(text.substr(begin, end - begin));
        layers[entry["metadata"]["layer"].get<int>()] = entry;
      }
    }
    Json index = {{"version", "1.0"}, {"format", "variable_chunks"}};
    Json metadata = store.description().to_json();
    metadata["layers"] = Json::array();
    for (const auto& [layer, entry] : layers) {
      index[std::to_string(layer)] = entry["index"];
      metadata["layers"].push_back(entry["metadata"]);
    }
    if (kind == CircuitTracerFiles::kPacked) write_atomically(files, folder / "index.json.gz", gzip(index.dump()));
    write_atomically(files, out / "feature_metadata.json", metadata.dump() + "\n");
    return std::string();
  });
}

}  // namespace tadapt

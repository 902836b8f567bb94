// A feature store of the size of a 7B model's: `feature_store_program MODEL CORPUS LAYERS FEATURES OUT` draws what
// each feature is active on. Feature 17 of layer 3 is strongest of all, and the only one to promote the last three
// tokens of MODEL's tokenizer; feature 18 is dead.
#include <cmath>
#include <cstdio>
#include <map>

#include "runtime/analysis/feature_store.h"

namespace tadapt {
namespace {

constexpr int kPlantedLayer = 3, kPlanted = 17;
constexpr std::int64_t kPlantedTokens = 3;

class Draws {
 public:
  explicit Draws(std::uint64_t seed) : state_(seed * 0xd1342543de82ef95) {}
  std::uint64_t bits() {
    std::uint64_t z = state_ += 0x9e3779b97f4a7c15;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
  }
  std::int64_t below(std::int64_t count) {
    return static_cast<std::int64_t>(bits() % static_cast<std::uint64_t>(count));
  }
  double share() { return static_cast<double>(bits() >> 11) * 0x1p-53; }

 private:
  std::uint64_t state_;
};

/// Few features are active often, most now and then, some never; an activation has weaker ones behind it.
std::map<std::int32_t, float> draw_activations(Draws& draws, int layer, std::int64_t tokens) {
  std::map<std::int32_t, float> drawn;
  if (draws.share() < 0.03) return drawn;
  const double often = 0.4 + 0.3 * (layer % 5) + (layer > 20 ? 1.0 : 0.0);
  const auto starts = 1 + static_cast<int>(often * std::exp(6.0 * std::pow(draws.share(), 8.0)));
  const double strength = std::exp(4.0 * draws.share() - 2.0);
  for (int i = 0; i < starts; ++i) {
    const std::int64_t at = draws.below(tokens);
    auto activation = static_cast<float>(strength * (0.2 + draws.share()));
    std::int64_t row = at;
    do {
      drawn[static_cast<std::int32_t>(row++)] = activation;
      activation *= 0.6f;
    } while (row < tokens && draws.below(3) > 0);
  }
  return drawn;
}

struct Store {
  const MarkedCorpus& corpus;
  const BatchPlaces& places;
  std::int32_t vocabulary;
  std::int64_t features;
};

LayerRecords draw_layer(int layer, const Store& store, const RecordOptions& options) {
  const auto tokens = static_cast<std::int64_t>(store.places.of_row.size());
  Draws draws(static_cast<std::uint64_t>(layer) + 1);
  std::vector<std::int32_t> offsets{0}, rows;
  std::vector<float> activations;
  for (std::int64_t feature = 0; feature < store.features; ++feature) {
    std::map<std::int32_t, float> drawn = draw_activations(draws, layer, tokens);
    if (layer == kPlantedLayer && feature == kPlanted) drawn = {{60, 500.0f}, {61, 250.0f}, {400, 125.0f}};
    if (layer == kPlantedLayer && feature == kPlanted + 1) drawn.clear();
    for (const auto& [row, activation] : drawn) {
      rows.push_back(row);
      activations.push_back(activation);
    }
    offsets.push_back(static_cast<std::int32_t>(rows.size()));
  }
  const auto domains = static_cast<std::int64_t>(store.corpus.dataset().domains().size());
  LayerRecords records(layer, store.features, domains, options);
  Context context = Context::cpu(1);
  records.add(context, {.offsets = offsets, .rows = rows, .activations = activations}, store.places);
  return records;
}

LensTable draw_lens(int layer, const Store& store) {
  Draws draws(static_cast<std::uint64_t>(layer) + 1000);
  LensTable lens{.tokens = kLensTokens, .top_ids = {}, .bottom_ids = {}, .top_logits = {}, .bottom_logits = {}};
  for (std::int64_t i = 0; i < store.features * kLensTokens; ++i) {
    lens.top_ids.push_back(static_cast<std::int32_t>(draws.below(store.vocabulary - kPlantedTokens)));
    lens.bottom_ids.push_back(static_cast<std::int32_t>(draws.below(store.vocabulary - kPlantedTokens)));
    lens.top_logits.push_back(static_cast<float>(kLensTokens - i % kLensTokens) * 0.25f);
    lens.bottom_logits.push_back(-lens.top_logits.back());
  }
  if (layer == kPlantedLayer)
    for (int k = 0; k < kPlantedTokens; ++k)
      lens.top_ids[kPlanted * kLensTokens + static_cast<std::size_t>(k)] = store.vocabulary - 1 - k;
  return lens;
}

void run(const std::vector<std::string>& words) {
  RealFileSystem files;
  const Tokenizer tokenizer = Tokenizer::load(files, words.at(1));
  const TokenDataset dataset = TokenDataset::build(files, words.at(2), tokenizer, {.max_tokens = 1000});
  const MarkedCorpus corpus(dataset, RegionFinder(ChatFormat::kDeepseek, tokenizer), words.at(2));
  BatchPlaces places;
  const RecordOptions options{.seed = 0, .top = 5, .sampled = 3};
  const ContrastWindows contrast(corpus, options.seed, options.contrast);
  for (std::int64_t i = 0; i < corpus.size(); ++i) {
    places.append(corpus.number(i), corpus.sequence(i).domain, corpus.places(i));
    contrast.mark(places);
  }
  const Store store{corpus, places, tokenizer.vocabulary_size(), std::stoll(words.at(4))};
  const FeatureStoreWriter writer{files, words.at(5)};
  files.make_directories(writer.directory);
  std::vector<std::int32_t> ids;
  for (std::int32_t id = 0; id < store.features; ++id) ids.push_back(id);
  nlohmann::ordered_json layers = nlohmann::ordered_json::array();
  for (int layer = 0; layer < std::stoi(words.at(3)); ++layer)
    layers.push_back(writer.write_layer(draw_layer(layer, store, options), ids, draw_lens(layer, store), corpus));
  writer.finish({.subject = "adapters",
                 .identity = "transcoder 0123456789abcdef",
                 .step = 1000,
                 .corpus = "0123456789abcdef",
                 .options = nlohmann::ordered_json::object(),
                 .records = options,
                 .sequences = corpus.size(),
                 .skipped = corpus.skipped(),
                 .totals = corpus.totals(),
                 .domains = dataset.domains()},
                layers, writer.write_tokens(corpus, contrast.all(), tokenizer));
}

}  // namespace
}  // namespace tadapt

int main(int argc, char** argv) {
  try {
    tadapt::run({argv, argv + argc});
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}

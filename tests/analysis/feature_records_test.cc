// Records of features: bounded, and joined from any parts. Index sets, column files and stores that are damaged.
#include "runtime/analysis/feature_records.h"

#include <cmath>

#include "runtime/analysis/index_set.h"
#include "tests/analysis/features_fixture.h"

namespace tadapt {
namespace {
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Pair;

class FeatureRecords : public testing::FeaturesFixture {};
INSTANTIATE_TEST_SUITE_P(Device, FeatureRecords, ::testing::Values(Device::kCpu), testing::device_name);

TEST_P(FeatureRecords, ActivationsThatAreNotFiniteAreNamed) {
  bundle_.layers[1].store->master_views(0)["b_enc"].span<float>()[3] = INFINITY;
  Context context = Context::cpu(1);
  const Decoder pair = Decoder::load_pair(context, files_, folder_ / "target", folder_ / "base", DType::kFloat32);
  AdapterFeatures source(context, pair, bundle_, DType::kFloat32);
  TokenBatch batch;
  batch.append(testing::random_ids(4, model_.vocabulary, 3));
  BatchPlaces places;
  places.append(7, 0, std::vector<TokenPlace>(4));
  LayerRecords records(2, 12, 1, {});
  ActivePairs pairs;
  EXPECT_ERROR(source.run(batch,
                          [&](Context& where, int layer, const Tensor& activations) {
                            if (layer == 2) records.add(context, pairs.gather(where, activations), places);
                          }),
               NonFiniteError, HasSubstr("conversation 7 of the corpus, token 0: feature 3 of layer 2 is not finite"));
}

TEST_P(FeatureRecords, RecordsOfAFeatureDoNotGrowWithTheCorpus) {
  constexpr std::int64_t kTokens = 1000;
  const std::vector<float> all(kTokens * 3, 1.0f);
  std::vector<float> numbers = all;
  Context context = Context::cpu(1);
  const RecordOptions options{.seed = 1, .top = 20, .sampled = 10};
  LayerRecords records(0, 3, 2, options);
  ActivePairs pairs;
  std::size_t after_first = 0;
  for (std::int64_t sequence = 0; sequence < 20; ++sequence) {
    BatchPlaces places;
    places.append(sequence, 1, std::vector<TokenPlace>(kTokens));
    records.add(context, pairs.gather(context, Tensor::of(std::span(numbers), {kTokens, 3})), places);
    if (sequence == 0) after_first = records.encoded().size();
  }
  EXPECT_EQ(records.counts(2).active, 20 * kTokens);
  EXPECT_EQ(records.top(0).size(), 20u);
  EXPECT_EQ(records.sampled(0).size(), 10u);
  EXPECT_LE(records.encoded().size(), after_first + 3 * 30 * 71 * sizeof(NearActivation));
  EXPECT_LE(static_cast<double>(records.encoded().size()), LayerRecords::most_bytes(3, 2, options));
}

TEST_P(FeatureRecords, DeadFeaturesAreCollectedToo) {
  export_adapters(files_, testing::random_bundle({1}, {model_.width, 12}, 0.0f), folder_ / "dead");
  FeatureRequest dead = request("out");
  dead.adapters = folder_ / "dead";
  dead.circuit_tracer = CircuitTracerFiles::kPacked;
  collect(dead);
  const StoredLayer layer = FeatureStore(files_, folder_ / "out").layer(1);
  EXPECT_EQ(layer.feature(11).counts.active, 0);
  EXPECT_THAT(layer.feature(11).top, IsEmpty());
  EXPECT_EQ(layer.feature(11).promoted.size(), 10u);
  EXPECT_EQ(layer.feature(11).promoted[3].id, 3) << "of equal logits the lower ids";
  EXPECT_EQ(files_.file_size(folder_ / "out/circuit-tracer/features/layer_1.bin"), 0u);
}

TEST_P(FeatureRecords, DamagedStoresAreRefused) {
  collect(request("out"));
  const std::map<std::string, std::string> whole = files_below("out");
  const auto damage = [&](const std::string& file, std::size_t at) {
    for (const auto& [name, bytes] : whole) write_atomically(files_, folder_ / "out" / name, bytes);
    std::string bytes = whole.at(file);
    bytes[at] = static_cast<char>(bytes[at] ^ 8);
    write_atomically(files_, folder_ / "out" / file, bytes);
  };
  const auto offset_of = [&](const nlohmann::json& listing, const char* column) {
    return listing.at("columns").at(column).at("chunks").at(0).at(0).get<std::size_t>();
  };
  const nlohmann::json json = nlohmann::json::parse(whole.at("features.json"));
  damage("layer-002.h5", offset_of(json["layers"][1]["listing"], "examples/activation") + 5);
  EXPECT_NO_THROW(FeatureStore(files_, folder_ / "out").layer(0));
  EXPECT_ERROR(FeatureStore(files_, folder_ / "out").layer(2), DataError,
               AllOf(HasSubstr("layer-002.h5: examples/activation"), HasSubstr("are not those that were written")));
  damage("tokens.h5", offset_of(json["tokens"], "tokens/id"));
  EXPECT_ERROR(FeatureStore(files_, folder_ / "out").tokens(), DataError, HasSubstr("tokens.h5: tokens/id"));
  write_atomically(files_, folder_ / "out/tokens.h5", whole.at("tokens.h5").substr(0, 1000));
  EXPECT_ERROR(FeatureStore(files_, folder_ / "out").tokens(), DataError, HasSubstr("tokens.h5: 1000 bytes"));
  EXPECT_ERROR(FeatureStore(files_, folder_ / "out").layer(1), DataError, HasSubstr("layer 1 is not in this"));
  EXPECT_ERROR(FeatureStore(files_, folder_ / "nothing"), MissingInputError, HasSubstr("features.json"));
}

TEST_P(FeatureRecords, TokensOfAStoreAreThoseOfTheCorpus) {
  collect(request("out"));
  const Tokenizer tokenizer = Tokenizer::load(files_, folder_ / "target");
  const TokenDataset corpus = TokenDataset::build(files_, folder_ / "corpus.jsonl", tokenizer, {.max_tokens = 200});
  const StoredTokens tokens = FeatureStore(files_, folder_ / "out").tokens();
  ASSERT_EQ(tokens.size(), 10);
  EXPECT_EQ(tokens.sequence(2).number, 3) << "number 2 does not think";
  EXPECT_EQ(tokens.with_number(3).line, 4);
  EXPECT_TRUE(std::ranges::equal(tokens.with_number(3).ids, corpus.sequence(3).ids));
  EXPECT_ERROR(tokens.with_number(2), DataError, HasSubstr("has no conversation 2"));
  EXPECT_EQ(tokens.text(tokens.sequence(0).ids[0]), "<｜begin▁of▁sentence｜>");
  EXPECT_EQ(tokens.text(tokenizer.vocabulary_size()), "") << "a padding row of the model's vocabulary";
}

TEST(HistogramBins, AreHalfOctaves) {
  for (int bin = 0; bin < kHistogramBins; ++bin) {
    EXPECT_EQ(histogram_bin(histogram_edge(bin)), bin);
    EXPECT_EQ(histogram_bin(std::nextafter(histogram_edge(bin + 1), 0.0f)), bin);
  }
  EXPECT_EQ(histogram_bin(1e-30f), 0);
  EXPECT_EQ(histogram_bin(1e30f), kHistogramBins - 1);
  EXPECT_EQ(histogram_edge(32), 1.0f);
}

TEST(IndexSets, JoinRangesAndKnowWhatIsMissing) {
  IndexSet set;
  EXPECT_THAT(set.missing(5, 2), ElementsAre(Pair(0, 2), Pair(2, 4), Pair(4, 5)));
  set.add(4, 6);
  set.add(0, 2);
  EXPECT_EQ(set.to_text(), "0-2,4-6");
  EXPECT_EQ(set.size(), 4);
  EXPECT_THAT(set.missing(9, 2), ElementsAre(Pair(2, 4), Pair(6, 8), Pair(8, 9)));
  IndexSet other = IndexSet::from_text("1-3,8-9", "here");
  EXPECT_TRUE(set.overlaps(other));
  EXPECT_FALSE(set.overlaps(IndexSet::from_text("2-4,6-7", "here")));
  other.add(set);
  EXPECT_EQ(other.to_text(), "0-3,4-6,8-9");
  other.add(3, 8);
  EXPECT_EQ(other.to_text(), "0-9");
  EXPECT_THAT(other.missing(9, 4), IsEmpty());
  EXPECT_EQ(IndexSet::from_text("", "here").size(), 0);
  for (const char* wrong : {"1", "2-1", "x", "1-2;3-4", "-1-2", "1-2x"})
    EXPECT_ERROR(IndexSet::from_text(wrong, "here"), DataError, HasSubstr("here: expected ranges"));
}

}  // namespace
}  // namespace tadapt

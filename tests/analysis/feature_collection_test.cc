// A whole collection against naive loops over dense activations, and the logit lens and neurons against their formulas.
#include "runtime/analysis/feature_collection.h"

#include <cmath>
#include <numeric>

#include "tests/analysis/features_fixture.h"

namespace tadapt {
namespace {
using ::testing::AllOf;
using ::testing::HasSubstr;

class FeatureCollectionTest : public testing::FeaturesFixture {};
INSTANTIATE_TEST_SUITE_P(Device, FeatureCollectionTest, testing::kEachDevice, testing::device_name);

/// What does not depend on where it was computed.
class FeatureCollectionOnCpu : public testing::FeaturesFixture {};
INSTANTIATE_TEST_SUITE_P(Device, FeatureCollectionOnCpu, ::testing::Values(Device::kCpu), testing::device_name);

/// Activations of one conversation, [tokens][feature], in double from what the MLP read, and as the model has them.
struct Dense {
  std::vector<double> exact;
  std::vector<float> activations;
};

/// Everything of a feature, the slow way.
struct Oracle {
  std::int64_t active = 0;
  std::map<std::string, std::int64_t> by_domain, by_region;
  std::vector<std::int64_t> by_thinking = std::vector<std::int64_t>(10), histogram = std::vector<std::int64_t>(64);
  struct At {
    float activation;
    std::int64_t sequence;
    std::int32_t position;
    std::uint64_t draw;
    std::string region;
    std::map<int, float> near;
  };
  std::vector<At> all;
};

/// Regions of a deepseek conversation of the toy tokenizer, whose markers are single tokens.
std::vector<std::string> regions_of(const Tokenizer& tokenizer, std::span<const std::int32_t> ids) {
  std::vector<std::string> regions;
  std::string now = "question";
  for (const std::int32_t id : ids) {
    const std::string text(tokenizer.token_bytes(id));
    if (text == "<｜begin▁of▁sentence｜>") {
      regions.emplace_back("bos");
    } else if (text == "<｜User｜>") {
      regions.emplace_back("user_marker");
    } else if (text == "<｜Assistant｜>") {
      regions.emplace_back("assistant_marker");
      now = "answer";
    } else if (text == "<think>") {
      regions.emplace_back("think_start");
      now = "thinking";
    } else if (text == "</think>") {
      regions.emplace_back("think_end");
      now = "answer";
    } else {
      regions.push_back(now);
    }
  }
  return regions;
}

TEST_P(FeatureCollectionTest, EqualsNaiveLoopsOverDenseActivations) {
  ASSERT_EQ(collect(request("out")), FeatureOutcome::kDone);
  const FeatureStore store(files_, folder_ / "out");
  const Tokenizer tokenizer = Tokenizer::load(files_, folder_ / "target");
  const TokenDataset corpus = TokenDataset::build(files_, folder_ / "corpus.jsonl", tokenizer, {.max_tokens = 200});
  Context context = testing::context_on(GetParam(), 2);
  const Decoder pair = Decoder::load_pair(context, files_, folder_ / "target", folder_ / "base", DType::kFloat32);
  AdapterFeatures source(context, pair, bundle_, DType::kFloat32);
  ASSERT_EQ(store.layers(), (std::vector<int>{0, 2}));
  std::map<int, std::vector<Oracle>> oracle;
  for (const int layer : store.layers()) oracle[layer].resize(testing::kTestFeatures);
  std::int64_t tokens = 0, skipped = 0;
  for (std::int64_t number = 0; number < corpus.size(); ++number) {
    const TokenSequence sequence = corpus.sequence(number);
    const std::vector<std::string> regions = regions_of(tokenizer, sequence.ids);
    if (std::ranges::count(regions, "think_end") == 0) {
      ++skipped;
      continue;
    }
    const auto length = static_cast<std::int32_t>(sequence.ids.size());
    tokens += length;
    const auto thinking = static_cast<double>(std::ranges::count(regions, "thinking"));
    const auto first = std::ranges::find(regions, "thinking") - regions.begin();
    TokenBatch batch;
    batch.append(sequence.ids);
    source.run(batch, [&](Context& where, int layer, const Tensor& activations) {
      const std::vector<float> a = on_host<float>(where, activations);
      const auto at = [&](std::int32_t t, std::size_t f) { return a[static_cast<std::size_t>(t) * 12 + f]; };
      for (std::size_t f = 0; f < oracle[layer].size(); ++f) {
        Oracle& feature = oracle[layer][f];
        for (std::int32_t t = 0; t < length; ++t) {
          const float value = at(t, f);
          if (!(value > 0)) continue;
          const std::string& region = regions[static_cast<std::size_t>(t)];
          ++feature.active;
          ++feature.by_domain[corpus.domains()[static_cast<std::size_t>(sequence.domain)]];
          ++feature.by_region[region];
          if (region == "thinking")
            ++feature
                  .by_thinking[static_cast<std::size_t>(std::floor(10.0 * static_cast<double>(t - first) / thinking))];
          const double octave = std::floor(std::log2(static_cast<double>(value)));
          const double bin = 2 * (octave + 16) + (static_cast<double>(value) >= 1.5 * std::exp2(octave) ? 1 : 0);
          ++feature.histogram[static_cast<std::size_t>(std::clamp(bin, 0.0, 63.0))];
          Oracle::At one{value, number, t, 0, region, {}};
          one.draw = RandomStream(5, RandomPurpose::kExamples, static_cast<std::uint64_t>(layer) << 32 | f,
                                  static_cast<std::uint64_t>(number))
                         .bits64(static_cast<std::uint32_t>(t));
          for (int offset = -50; offset <= 20; ++offset)
            if (t + offset >= 0 && t + offset < length && at(t + offset, f) > 0) one.near[offset] = at(t + offset, f);
          feature.all.push_back(std::move(one));
        }
      }
    });
  }
  EXPECT_EQ(store.description().totals.tokens, tokens);
  EXPECT_EQ(store.description().skipped, skipped);
  EXPECT_EQ(store.description().sequences + skipped, corpus.size());
  // On a GPU the products of a batch of another size may differ in their last bits; then only sums are compared.
  const bool exact = GetParam() == Device::kCpu;
  for (const auto& [layer, features] : oracle) {
    const StoredLayer stored = store.layer(layer);
    ASSERT_EQ(stored.features(), testing::kTestFeatures);
    for (std::size_t f = 0; f < features.size(); ++f) {
      SCOPED_TRACE(fmt::format("layer {} feature {}", layer, f));
      const StoredFeature found = stored.feature(static_cast<std::int64_t>(f));
      Oracle expected = features[f];
      EXPECT_EQ(found.id, static_cast<std::int32_t>(f));
      if (!exact) {
        EXPECT_NEAR(static_cast<double>(found.counts.active), static_cast<double>(expected.active), 2.0);
        continue;
      }
      EXPECT_EQ(found.counts.active, expected.active);
      for (std::size_t i = 0; i < store.description().domains.size(); ++i)
        EXPECT_EQ(found.counts.by_domain[i], expected.by_domain[store.description().domains[i]]);
      for (std::size_t i = 0; i < kRegionNames.size(); ++i)
        EXPECT_EQ(found.counts.by_region[i], expected.by_region[std::string(kRegionNames[i])]) << kRegionNames[i];
      EXPECT_TRUE(std::ranges::equal(found.counts.by_thinking, expected.by_thinking));
      EXPECT_TRUE(std::ranges::equal(found.counts.histogram, expected.histogram));
      const auto compare = [&](const std::vector<StoredExample>& examples, std::size_t most) {
        ASSERT_EQ(examples.size(), std::min(most, expected.all.size()));
        for (std::size_t i = 0; i < examples.size(); ++i) {
          const Oracle::At& one = expected.all[i];
          EXPECT_EQ(examples[i].activation, one.activation);
          EXPECT_EQ(examples[i].sequence, one.sequence);
          EXPECT_EQ(examples[i].position, one.position);
          EXPECT_EQ(kRegionNames[static_cast<std::size_t>(examples[i].region)], one.region);
          std::map<int, float> near;
          for (const NearActivation& other : examples[i].near) near[other.offset] = other.activation;
          EXPECT_EQ(near, one.near);
        }
      };
      std::ranges::sort(expected.all, [](const auto& a, const auto& b) {
        return std::tuple(-a.activation, a.sequence, a.position) < std::tuple(-b.activation, b.sequence, b.position);
      });
      compare(found.top, 4);
      std::ranges::sort(expected.all, {}, &Oracle::At::draw);
      compare(found.sampled, 3);
    }
  }
}

TEST_P(FeatureCollectionTest, ActivationsAreThoseOfTheFormulaInDouble) {
  Context context = testing::context_on(GetParam(), 2);
  const Decoder pair = Decoder::load_pair(context, files_, folder_ / "target", folder_ / "base", DType::kFloat32);
  AdapterFeatures source(context, pair, bundle_, DType::kFloat32);
  TokenBatch batch;
  batch.append(testing::random_ids(30, model_.vocabulary, 3));
  // Layer 0 reads the same in the target's pass as in the adapter model's.
  std::vector<float> read, found;
  SegmentRunner runner(context, pair);
  const std::vector<Segment> segments = {{.splice = uniform_splice(3, {}), .begin = 0, .end = 1}};
  runner.run(segments, batch, {.keep = {}, .observe = [&](const Reading& reading) {
                                 if (reading.point == ReadPoint::kMlpIn) read = on_host<float>(context, reading.values);
                               }});
  source.run(batch, [&](Context& where, int layer, const Tensor& activations) {
    if (layer == 0) found = on_host<float>(where, activations);
  });
  const ParameterTensors masters = bundle_.layers[0].store->master_views(0);
  const std::span<const float> encoder = masters["W_enc"].span<float>(), bias = masters["b_enc"].span<float>();
  for (std::size_t t = 0; t < 30; ++t) {
    for (std::size_t f = 0; f < 12; ++f) {
      double sum = static_cast<double>(bias[f]);
      for (std::size_t d = 0; d < 24; ++d)
        sum += static_cast<double>(encoder[f * 24 + d]) * static_cast<double>(read[t * 24 + d]);
      ASSERT_NEAR(static_cast<double>(found[t * 12 + f]), std::max(0.0, sum), 1e-5);
    }
  }
}

TEST_P(FeatureCollectionTest, TheLogitLensIsTheHeadTimesTheDecoderRow) {
  Context context = testing::context_on(GetParam(), 2);
  const Decoder pair = Decoder::load_pair(context, files_, folder_ / "target", folder_ / "base", DType::kFloat32);
  const Tensor directions = bundle_.layers[1].store->master_views(0)["W_dec"];
  // Blocks of two rows.
  const LensTable table = logit_lens(context, pair, directions, static_cast<std::size_t>(8 * model_.vocabulary));
  const testing::TinyTensors tensors = testing::tiny_tensors(model_);
  const std::span<const float> head = tensors.buffers.at("lm_head.weight").span<float>();
  ASSERT_EQ(table.tokens, 10);
  for (std::size_t f = 0; f < 12; ++f) {
    std::vector<double> logits;
    for (std::size_t v = 0; v < static_cast<std::size_t>(model_.vocabulary); ++v) {
      double sum = 0;
      for (std::size_t d = 0; d < 24; ++d)
        sum += static_cast<double>(head[v * 24 + d]) * static_cast<double>(directions.span<float>()[f * 24 + d]);
      logits.push_back(sum);
    }
    std::vector<double> sorted = logits;
    std::ranges::sort(sorted);
    for (std::size_t i = 0; i < 10; ++i) {
      const std::size_t at = f * 10 + i;
      EXPECT_NEAR(static_cast<double>(table.top_logits[at]), sorted[sorted.size() - 1 - i], 1e-5);
      EXPECT_NEAR(logits[static_cast<std::size_t>(table.top_ids[at])], sorted[sorted.size() - 1 - i], 1e-5);
      EXPECT_NEAR(static_cast<double>(table.bottom_logits[at]), sorted[i], 1e-5);
      EXPECT_NEAR(logits[static_cast<std::size_t>(table.bottom_ids[at])], sorted[i], 1e-5);
    }
  }
}

TEST_P(FeatureCollectionOnCpu, NeuronsAreHiddenValuesOfTheModelsOwnMlps) {
  FeatureRequest both = request("out");
  both.neurons = 5;
  both.neuron_rule = NeuronRule::kAbsolute;
  collect(both);
  const TokenDataset corpus = TokenDataset::build(files_, folder_ / "corpus.jsonl",
                                                  Tokenizer::load(files_, folder_ / "target"), {.max_tokens = 200});
  for (const std::uint64_t seed : {1u, 2u}) {
    testing::TinyModel model = model_;
    model.seed = seed;
    const char* name = seed == 1 ? "target" : "base";
    const FeatureStore store(files_, folder_ / fmt::format("out/neurons-{}", name));
    EXPECT_EQ(store.description().subject, fmt::format("neurons of the {}", name));
    EXPECT_EQ(store.layers(), (std::vector<int>{0, 1, 2}));
    // The first conversation's hidden values of the first layer, in double.
    Context context = Context::cpu(1);
    const Decoder decoder = Decoder::load(context, files_, folder_ / name, DType::kFloat32);
    TokenBatch batch;
    batch.append(corpus.sequence(0).ids);
    std::vector<float> read;
    const std::vector<Segment> segments = {{.splice = uniform_splice(3, {}), .begin = 0, .end = 1}};
    SegmentRunner(context, decoder).run(segments, batch, {.keep = {}, .observe = [&](const Reading& reading) {
                                                            if (reading.point == ReadPoint::kMlpIn)
                                                              read = on_host<float>(context, reading.values);
                                                          }});
    const testing::TinyTensors tensors = testing::tiny_tensors(model);
    const std::span<const float> gates = tensors.buffers.at("model.layers.0.mlp.gate_proj.weight").span<float>(),
                                 ups = tensors.buffers.at("model.layers.0.mlp.up_proj.weight").span<float>();
    const StoredLayer layer = store.layer(0);
    ASSERT_EQ(layer.features(), 5);
    for (std::int64_t i = 0; i < 5; ++i) {
      const StoredFeature neuron = layer.feature(i);
      EXPECT_EQ(neuron.id, drawn_neurons(5, 40, 5, 0)[static_cast<std::size_t>(i)]);
      EXPECT_EQ(neuron.counts.active, store.description().totals.tokens) << "every token, by the absolute rule";
      const auto row = static_cast<std::size_t>(neuron.id) * 24;
      std::vector<double> hidden;
      for (std::size_t t = 0; t < static_cast<std::size_t>(batch.tokens()); ++t) {
        double gate = 0, up = 0;
        for (std::size_t d = 0; d < 24; ++d) {
          gate += static_cast<double>(gates[row + d]) * static_cast<double>(read[t * 24 + d]);
          up += static_cast<double>(ups[row + d]) * static_cast<double>(read[t * 24 + d]);
        }
        hidden.push_back(std::abs(gate / (1 + std::exp(-gate)) * up));
      }
      for (const std::vector<StoredExample>* examples : {&neuron.top, &neuron.sampled})
        for (const StoredExample& example : *examples) {
          if (example.sequence != 0) continue;
          const double expected = hidden[static_cast<std::size_t>(example.position)];
          EXPECT_NEAR(static_cast<double>(example.activation), expected, 1e-4 * (1 + expected));
        }
    }
  }
  both.out = folder_ / "positive";
  both.neuron_rule = NeuronRule::kPositive;
  collect(both);
  const StoredLayer positive = FeatureStore(files_, folder_ / "positive/neurons-target").layer(1);
  EXPECT_LT(positive.feature(0).counts.active, FeatureStore(files_, folder_ / "out").description().totals.tokens);
  EXPECT_GT(positive.feature(0).counts.active, 0);
  both.neurons = 41;
  both.out = folder_ / "too-many";
  EXPECT_ERROR(collect(both), ConfigError, HasSubstr("--neurons: expected at most the 40"));
}

}  // namespace
}  // namespace tadapt

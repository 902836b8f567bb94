// Contributions against the linearised model run forwards, their sums, and their independence of batches.
#include "runtime/analysis/attribution_pass.h"

#include <gmock/gmock.h>

#include "tests/analysis/attribution_fixture.h"
#include "tests/analysis/linearised_oracle.h"

namespace tadapt {
namespace {

using testing::LinearisedOracle;

struct Shapes {
  testing::TinyModel model;
  std::vector<int> layers;  ///< with an adapter
  std::int64_t features;
  std::int64_t tokens;

  AdapterBundle bundle() const {
    return testing::random_bundle(layers, {.model_width = model.width, .features = features}, 0.4f);
  }
  std::vector<std::int32_t> ids() const { return testing::random_ids(tokens, model.vocabulary, model.seed); }
  testing::TinyModel base() const {
    testing::TinyModel other = model;
    other.seed += 100;
    return other;
  }
};

const std::vector<Shapes>& all_shapes() {
  static const std::vector<Shapes> shapes = {
      {{.layers = 3}, {0, 1, 2}, 17, 9},
      {{.layers = 4, .width = 32, .mlp_width = 24, .heads = 4, .kv_heads = 1, .tied_head = true, .seed = 5},
       {0, 2},
       40,
       13},
      {{.layers = 2, .width = 16, .mlp_width = 48, .heads = 2, .kv_heads = 2, .seed = 8}, {1}, 5, 2},
  };
  return shapes;
}

/// A random model, one prompt recorded.
struct Recorded {
  Recorded(Device device, const testing::TemporaryDirectory& directory, const Shapes& shapes)
      : ids(shapes.ids()),
        fixture(made(device, directory, shapes)),
        record(fixture->record(ids)),
        pass(fixture->pass(record)) {}

  static std::unique_ptr<testing::AttributionFixture> made(Device device, const testing::TemporaryDirectory& directory,
                                                           const Shapes& shapes) {
    testing::write_tiny_model(directory / "target", shapes.model);
    testing::write_tiny_model(directory / "base", shapes.base());
    return std::make_unique<testing::AttributionFixture>(device, directory / "target", directory / "base",
                                                         shapes.bundle(), 2);
  }
  int layers() const { return static_cast<int>(record.layers().size()); }

  std::vector<std::int32_t> ids;
  std::unique_ptr<testing::AttributionFixture> fixture;
  PromptRecord record;
  AttributionPass pass;
};

class AttributionPassTest : public testing::PerDevice {
 protected:
  /// A device that is run on the host is slow: it gets the smallest only.
  std::span<const Shapes> shapes() const {
    return GetParam() == Device::kCpu ? std::span(all_shapes()) : std::span(all_shapes()).last(1);
  }
  testing::TemporaryDirectory directory_;
};

INSTANTIATE_TEST_SUITE_P(Device, AttributionPassTest, testing::kEachDevice, testing::device_name);

/// What a target's value is where the oracle was run.
double value_of(const LinearisedOracle::Reached& reached, const AttributionTarget& target) {
  const auto layer = static_cast<std::size_t>(target.layer), id = static_cast<std::size_t>(target.id);
  return layer == reached.pre_activations.size()
             ? reached.logits[id]
             : reached.pre_activations[layer][static_cast<std::size_t>(target.position)][id];
}

/// Every source is taken away in turn: what every target then misses is that source's contribution, for the linearised
/// model is linear. Sources that a target does not see must not change it.
TEST_P(AttributionPassTest, ContributionsAreDifferencesOfTheLinearisedModel) {
  for (const Shapes& shape : shapes()) {
    Recorded made(GetParam(), directory_, shape);
    const testing::TinyTensors target = testing::tiny_tensors(shape.model), base = testing::tiny_tensors(shape.base());
    const LinearisedOracle oracle(made.fixture->model().decoder().config(), target.views(), base.views(),
                                  shape.bundle(), made.ids);
    const std::vector<Contributions> found =
        made.pass.run(testing::all_targets(made.record, {.most = 4, .mass = 1.0}), testing::nothing);
    const LinearisedOracle::Reached whole = oracle.run(oracle.sources());
    const auto tolerance = [](const Contributions& one) { return 1e-4 * (1.0 + std::abs(one.target.value)); };
    for (const Contributions& one : found)
      EXPECT_NEAR(value_of(whole, one.target), one.target.value, tolerance(one)) << "the linearised model is the model";

    std::vector<std::size_t> next(found.size(), 0);  // of each target's features
    std::vector<double> first_position(found.size(), 0.0);
    const auto compare = [&](const LinearisedOracle::Sources& less, int layer, std::int32_t position, bool is_token) {
      const LinearisedOracle::Reached without = oracle.run(less);
      for (std::size_t i = 0; i < found.size(); ++i) {
        const Contributions& one = found[i];
        const double missing = value_of(whole, one.target) - value_of(without, one.target);
        const bool seen = position <= one.target.position && (is_token || layer < one.target.layer);
        double expected = 0.0;
        if (seen && position == 0)
          first_position[i] += expected = missing;
        else if (seen)
          expected = static_cast<double>(is_token ? one.tokens[static_cast<std::size_t>(position) - 1]
                                                  : one.features[next[i]++]);
        EXPECT_NEAR(missing, expected, tolerance(one));
      }
    };
    for (int layer = 0; layer < made.layers(); ++layer) {
      const PromptRecord::Layer& there = made.record.layers()[static_cast<std::size_t>(layer)];
      for (std::size_t pair = 0; pair < there.features.size(); ++pair) {
        LinearisedOracle::Sources less = oracle.sources();
        const auto position = static_cast<std::size_t>(there.positions[pair]),
                   id = static_cast<std::size_t>(there.features[pair]);
        double& activation = less.activations[static_cast<std::size_t>(layer)][position][id];
        EXPECT_NEAR(activation, there.activations[pair], 1e-4);
        activation = 0.0;
        compare(less, layer, there.positions[pair], false);
      }
    }
    for (std::size_t position = 0; position < made.ids.size(); ++position) {
      LinearisedOracle::Sources less = oracle.sources();
      for (double& number : less.embeddings[position]) number = 0.0;
      compare(less, 0, static_cast<std::int32_t>(position), true);
    }
    LinearisedOracle::Sources unbiased = oracle.sources();
    unbiased.biases = 0.0;
    const LinearisedOracle::Reached without = oracle.run(unbiased);
    for (std::size_t i = 0; i < found.size(); ++i) {
      EXPECT_EQ(next[i], found[i].features.size());
      EXPECT_NEAR(first_position[i], found[i].first_position, tolerance(found[i]));
      EXPECT_NEAR(value_of(whole, found[i].target) - value_of(without, found[i].target), found[i].biases,
                  tolerance(found[i]));
    }
  }
}

TEST_P(AttributionPassTest, ContributionsAndBiasesAddUpToTheValue) {
  const Shapes large{
      {.layers = 6, .width = 48, .mlp_width = 96, .heads = 6, .kv_heads = 3, .seed = 3}, {0, 1, 3, 4, 5}, 64, 70};
  Recorded made(GetParam(), directory_, GetParam() == Device::kCpu ? large : all_shapes().back());
  std::vector<AttributionTarget> targets = testing::all_targets(made.record);
  std::vector<AttributionTarget> some;
  for (std::size_t i = 0; i < targets.size(); i += i < 10 ? 1 : 97) some.push_back(targets[i]);
  for (const Contributions& one : made.pass.run(some, testing::nothing)) {
    double sizes = std::abs(one.biases) + std::abs(one.first_position);
    for (const float contribution : one.features) sizes += std::abs(static_cast<double>(contribution));
    for (const float contribution : one.tokens) sizes += std::abs(static_cast<double>(contribution));
    EXPECT_NEAR(one.residual(), 0.0, 1e-5 * sizes)
        << one.target.layer << " " << one.target.position << " " << one.target.id;
  }
}

/// A target that goes back alone, and among others, has the same numbers.
TEST_P(AttributionPassTest, ATargetsNumbersAreItsOwn) {
  Recorded made(GetParam(), directory_, shapes().front());
  const std::vector<AttributionTarget> targets = testing::all_targets(made.record);
  const std::vector<Contributions> together = made.pass.run(targets, testing::nothing);
  for (std::size_t i = 0; i < targets.size(); i += 7) {
    const std::vector<Contributions> alone = made.pass.run(std::span(targets).subspan(i, 1), testing::nothing);
    EXPECT_TRUE(testing::agree(GetParam(), alone.front().features, together[i].features, 1e-5));
    EXPECT_TRUE(testing::agree(GetParam(), alone.front().tokens, together[i].tokens, 1e-5));
  }
}

/// MLPs as maps of the lowest layers, of none and of all: the same contributions to rounding, each target's its own.
TEST_P(AttributionPassTest, MapsOfMlpsGiveTheSame) {
  for (const Shapes& shape : shapes()) {
    Recorded made(GetParam(), directory_, shape);
    const std::vector<AttributionTarget> targets = testing::all_targets(made.record);
    const std::vector<Contributions> expected = made.pass.run(targets, testing::nothing);
    for (int layers = 0; layers <= made.layers(); ++layers) {
      int told = 0;
      const MlpMaps maps(made.fixture->context(), made.fixture->model(), made.record, layers, [&] { ++told; });
      EXPECT_EQ(told, layers);
      AttributionPass pass(made.fixture->context(), made.fixture->model(), made.fixture->memory(), made.record, &maps);
      const std::vector<Contributions> found = pass.run(targets, testing::nothing);
      for (std::size_t i = 0; i < targets.size(); ++i) {
        const auto largest = [](const std::vector<float>& numbers) {
          float most = 0.0f;
          for (const float number : numbers) most = std::max(most, std::abs(number));
          return static_cast<double>(most);
        };
        const double tolerance = 1e-5 * (largest(expected[i].features) + largest(expected[i].tokens));
        for (const auto part : {&Contributions::features, &Contributions::tokens})
          EXPECT_THAT(found[i].*part,
                      ::testing::Pointwise(::testing::FloatNear(static_cast<float>(tolerance)), expected[i].*part));
        EXPECT_NEAR(found[i].residual(), 0.0, 1e-4 * (1.0 + std::abs(found[i].target.value)));
      }
      const std::vector<Contributions> alone = pass.run(std::span(targets).last(1), testing::nothing);
      EXPECT_TRUE(testing::agree(GetParam(), alone.front().tokens, found.back().tokens, 1e-5));
    }
  }
}

TEST_P(AttributionPassTest, MapsAreMadeWhereTheyPay) {
  const Shapes& shape = shapes().front();
  Recorded made(GetParam(), directory_, shape);
  const DecoderConfig& config = made.fixture->model().decoder().config();
  const auto layers = [&](std::int64_t targets, std::int64_t bytes) {
    return MlpMaps::layers_that_pay(config, made.record, targets, bytes);
  };
  constexpr std::int64_t kMuch = std::int64_t{1} << 40;
  const std::int64_t layer = 4 * made.record.tokens() * config.width * config.width;
  EXPECT_EQ(layers(0, kMuch), 0) << "no targets pay for nothing";
  EXPECT_EQ(layers(10'000, layer - 1), 0);
  EXPECT_LT(layers(10'000, kMuch), made.layers()) << "nothing is above the last layer's features but logits";
  EXPECT_LE(layers(10'000, layer), 1);
  EXPECT_EQ(MlpMaps::bytes(config, made.record.tokens(), layer - 1), 0);
  EXPECT_GT(MlpMaps::bytes(config, made.record.tokens(), kMuch), made.layers() * layer);
}

/// With adapters that are never active only tokens and biases are left.
TEST_P(AttributionPassTest, NoFeatureNeedsToBeActive) {
  const Shapes& shape = shapes().front();
  testing::write_tiny_model(directory_ / "target", shape.model);
  testing::write_tiny_model(directory_ / "base", shape.base());
  AdapterBundle bundle = shape.bundle();
  for (const AdapterBundle::Layer& layer : bundle.layers)
    std::ranges::fill(layer.store->master_views(0)["b_enc"].span<float>(), -1000.0f);
  testing::AttributionFixture fixture(GetParam(), directory_ / "target", directory_ / "base", std::move(bundle));
  const std::vector<std::int32_t> ids = shape.ids();
  const PromptRecord record = fixture.record(ids);
  EXPECT_EQ(record.pairs(), 0);
  AttributionPass pass = fixture.pass(record);
  for (const Contributions& one : pass.run(record.logit_targets({}), testing::nothing)) {
    EXPECT_TRUE(one.features.empty());
    EXPECT_NEAR(one.residual(), 0.0, 1e-4 * (1.0 + std::abs(one.target.value)));
  }
}

TEST_P(AttributionPassTest, LaterLayersComeFirst) {
  Recorded made(GetParam(), directory_, all_shapes().front());
  std::vector<AttributionTarget> targets = testing::all_targets(made.record);
  std::ranges::reverse(targets);
  EXPECT_THROW(made.pass.run(targets, testing::nothing), ShapeError);
  EXPECT_TRUE(made.pass.run({}, testing::nothing).empty());
}

TEST_P(AttributionPassTest, LogitsAreCutAtTheirMass) {
  Recorded made(GetParam(), directory_, all_shapes().front());
  const auto choose = [&](int most, double mass) { return made.record.logit_targets({.most = most, .mass = mass}); };
  EXPECT_EQ(choose(3, 1.0).size(), 3u);
  EXPECT_EQ(choose(3, 1e-9).size(), 1u);
  EXPECT_EQ(choose(1000, 1.0).size(), 50u) << "never more than there are";
  double reached = 0.0;
  const std::vector<AttributionTarget> half = choose(50, 0.5);
  for (const AttributionTarget& target : half) reached += target.probability;
  EXPECT_GE(reached, 0.5);
  EXPECT_LT(reached - half.back().probability, 0.5);
  EXPECT_TRUE(std::ranges::is_sorted(half, std::greater(), &AttributionTarget::probability));
}

}  // namespace
}  // namespace tadapt

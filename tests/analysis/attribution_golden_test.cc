// Attribution against PyTorch's autograd and dense matrices (tests/golden/make_attribution_golden.py).
#include <gmock/gmock.h>

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>

#include "runtime/analysis/prune_graph.h"
#include "tests/analysis/attribution_fixture.h"

namespace tadapt {
namespace {

std::filesystem::path golden() { return std::filesystem::path(TADAPT_SOURCE_DIR) / "tests/golden"; }

/// A device that is run on the host is slow: it gets the shortest prompt only.
nlohmann::json cases(Device device) {
  std::ifstream file(golden() / "attribution/golden.json");
  nlohmann::json all = nlohmann::json::parse(file)["cases"];
  if (device != Device::kCpu)
    all.erase(std::remove_if(all.begin(), all.end(), [](const auto& one) { return one["ids"].size() > 2; }), all.end());
  return all;
}

AdapterBundle golden_bundle() {
  const SafetensorsFile saved(golden() / "bridging/adapters.safetensors");
  AdapterBundle bundle{
      .type = "transcoder", .layers = {}, .source = {}, .base_fingerprint = {}, .target_fingerprint = {}};
  for (int layer = 0; layer < 3; ++layer) {
    const Shape shape = saved.tensor(fmt::format("{}.W_enc", layer)).shape();
    bundle.layers.push_back(zero_layer(bundle.type, layer, {.model_width = shape[1], .features = shape[0]}));
    const ParameterTensors masters = bundle.layers.back().store->master_views(0);
    for (const auto& [name, tensor] : masters.entries())
      std::ranges::copy(saved.tensor(fmt::format("{}.{}", layer, name)).span<float>(), tensor.span<float>().begin());
  }
  return bundle;
}

constexpr double kTolerance = 2e-5;

class AttributionGolden : public testing::PerDevice {
 protected:
  void SetUp() override {
    PerDevice::SetUp();
    if (!IsSkipped())
      fixture_.emplace(GetParam(), golden() / "bridging/target", golden() / "bridging/base", golden_bundle(), 2);
  }
  std::optional<testing::AttributionFixture> fixture_;
};

INSTANTIATE_TEST_SUITE_P(Device, AttributionGolden, testing::kEachDevice, testing::device_name);

/// A contribution of each source by its number in the golden file: features, then tokens.
std::vector<double> by_source(const PromptRecord& record, const nlohmann::json& features, const Contributions& made) {
  std::map<std::array<std::int64_t, 3>, std::size_t> number;
  for (std::size_t i = 0; i < features.size(); ++i) number[features[i].get<std::array<std::int64_t, 3>>()] = i;
  std::vector<double> row(features.size() + static_cast<std::size_t>(record.tokens()) - 1);
  const float* next = made.features.data();
  for (int layer = 0; layer < made.target.layer; ++layer) {
    const PromptRecord::Layer& there = record.layers()[static_cast<std::size_t>(layer)];
    for (std::int32_t pair = there.offsets[1]; pair < there.offsets[static_cast<std::size_t>(made.target.position) + 1];
         ++pair) {
      const auto at = static_cast<std::size_t>(pair);
      row.at(number.at({layer, there.positions[at], there.features[at]})) = static_cast<double>(*next++);
    }
  }
  EXPECT_EQ(next, made.features.data() + made.features.size());
  for (std::size_t token = 0; token < made.tokens.size(); ++token)
    row.at(features.size() + token) = static_cast<double>(made.tokens[token]);
  return row;
}

TEST_P(AttributionGolden, ContributionsOfEveryTarget) {
  for (const nlohmann::json& expected : cases(GetParam())) {
    const auto ids = expected["ids"].get<std::vector<std::int32_t>>();
    const PromptRecord record = fixture_->record(ids);
    AttributionPass pass = fixture_->pass(record);
    const std::vector<Contributions> found = pass.run(testing::all_targets(record), testing::nothing);
    std::map<std::array<std::int64_t, 3>, const Contributions*> of_feature;
    std::vector<const Contributions*> rows;
    for (const Contributions& made : found)
      of_feature[{made.target.layer, made.target.position, made.target.id}] = &made;
    for (const nlohmann::json& feature : expected["features"])
      rows.push_back(of_feature.at(feature.get<std::array<std::int64_t, 3>>()));
    ASSERT_LE(expected["logits"].size(), found.size());
    for (std::size_t i = 0; i < expected["logits"].size(); ++i) {
      rows.push_back(&found[i]);
      EXPECT_EQ(found[i].target.id, expected["logits"][i]["token"]);
      EXPECT_NEAR(found[i].target.probability, expected["logits"][i]["probability"], kTolerance);
    }
    ASSERT_EQ(found[rows.size() - expected["features"].size()].target.layer, 2) << "as many logits as expected";
    for (std::size_t i = 0; i < rows.size(); ++i) {
      const nlohmann::json& row = expected["rows"][i];
      const double size = 1.0 + std::abs(row["value"].get<double>());
      EXPECT_NEAR(rows[i]->target.value, row["value"], kTolerance * size);
      EXPECT_NEAR(rows[i]->biases, row["biases"], kTolerance * size);
      EXPECT_NEAR(rows[i]->first_position, row["first_position"], kTolerance * size);
      EXPECT_NEAR(rows[i]->residual(), 0.0, kTolerance * size);
      EXPECT_THAT(
          by_source(record, expected["features"], *rows[i]),
          ::testing::Pointwise(::testing::DoubleNear(kTolerance * size), row["edges"].get<std::vector<double>>()));
    }
  }
}

TEST_P(AttributionGolden, GraphsGrowAndArePruned) {
  for (const nlohmann::json& expected : cases(GetParam())) {
    const auto ids = expected["ids"].get<std::vector<std::int32_t>>();
    const PromptRecord record = fixture_->record(ids);
    AttributionPass pass = fixture_->pass(record);
    for (const nlohmann::json& grown : expected["graphs"]) {
      const GrowthOptions options{.logits = {},
                                  .most_features = grown["max_features"],
                                  .batch = grown["batch"],
                                  .batches_a_ranking = grown["batches_a_ranking"]};
      const AttributionGraph graph = grow_graph(pass, options, 1 << 30, [](std::int64_t) {});
      ASSERT_EQ(graph.features, grown["features"].size());
      EXPECT_EQ(graph.active_features, static_cast<std::int64_t>(expected["features"].size()));
      for (std::size_t i = 0; i < graph.features; ++i) {
        const nlohmann::json& feature = expected["features"][grown["features"][i].get<std::size_t>()];
        const GraphNode& node = graph.nodes[i];
        EXPECT_EQ((std::array<std::int64_t, 3>{node.layer, node.position, node.id}),
                  (feature.get<std::array<std::int64_t, 3>>()));
      }
      const auto near = [](const nlohmann::json& numbers) {
        return ::testing::Pointwise(::testing::DoubleNear(kTolerance), numbers.get<std::vector<double>>());
      };
      EXPECT_THAT(node_influence(graph), near(grown["influence"]));
      const PrunedGraph pruned = prune_graph(graph, {});
      const std::vector<double> influence = node_influence(graph);
      for (std::size_t node = 0; node < graph.first_logit(); ++node) {
        if (influence[node] > 0) {
          EXPECT_NEAR(pruned.cumulative[node], grown["cumulative"][node].get<double>(), 1e-4);
        }
      }
      std::vector<std::size_t> nodes;
      std::vector<std::array<std::size_t, 2>> edges;
      for (std::size_t node = 0; node < graph.nodes.size(); ++node) {
        if (pruned.nodes[node]) nodes.push_back(node);
        for (auto edge = static_cast<std::size_t>(graph.offsets[node]);
             edge < static_cast<std::size_t>(graph.offsets[node + 1]); ++edge)
          if (pruned.edges[edge]) edges.push_back({node, static_cast<std::size_t>(graph.sources[edge])});
      }
      EXPECT_EQ(nodes, grown["kept_nodes"].get<std::vector<std::size_t>>());
      EXPECT_EQ(edges, (grown["kept_edges"].get<std::vector<std::array<std::size_t, 2>>>()));
    }
  }
}

}  // namespace
}  // namespace tadapt

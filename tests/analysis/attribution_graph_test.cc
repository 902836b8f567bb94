// Influence, pruning and JSON of a graph worked out by hand; growth on a random model.
#include "runtime/analysis/attribution_graph.h"

#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

#include "runtime/analysis/graph_json.h"
#include "runtime/analysis/graph_page.h"
#include "tests/analysis/attribution_fixture.h"
#include "tests/support/errors.h"

namespace tadapt {
namespace {

using ::testing::DoubleNear;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pointwise;

/// Three features, tokens at positions 1 and 2, two logits of a model of 2 layers:
///   f0 <- 2 t1          f1 <- f0 - 3 t2        f2 <- t1/2 + t2/2
///   l0 <- 3 f1 - t2     l1 <- f0 + f2 + 2 t1
AttributionGraph by_hand() {
  AttributionGraph graph{.nodes = {{.layer = 0, .position = 1, .id = 3, .value = 2.5},
                                   {.layer = 1, .position = 2, .id = 5, .value = 0.1},
                                   {.layer = 1, .position = 2, .id = 7, .value = 1.0},
                                   {.layer = -1, .position = 1, .id = 40},
                                   {.layer = -1, .position = 2, .id = 41},
                                   {.layer = 2, .position = 2, .id = 8, .value = 4.0, .probability = 0.6},
                                   {.layer = 2, .position = 2, .id = 9, .value = 3.0, .probability = 0.3}},
                         .features = 3,
                         .logits = 2,
                         .balances = std::vector<Balance>(7),
                         .offsets = {0, 1, 3, 5, 5, 5, 7, 10},
                         .sources = {3, 0, 4, 3, 4, 1, 4, 0, 2, 3},
                         .weights = {2.0f, 1.0f, -3.0f, 0.5f, 0.5f, 3.0f, -1.0f, 1.0f, 1.0f, 2.0f},
                         .active_features = 4};
  graph.balances[0] = {.edges = 2.0, .left_out = 0.25, .biases = 0.125, .first_position = 0.125, .residual = 1e-7};
  return graph;
}

TEST(AttributionGraph, InfluenceByHand) {
  // l0 gives 0.6 · 3/4 to f1 and 0.6 · 1/4 to t2, l1 0.3 · 1/4 to f0 and f2 each and 0.3 · 2/4 to t1; and so on.
  EXPECT_THAT(node_influence(by_hand()), Pointwise(DoubleNear(1e-12), {0.1875, 0.45, 0.075, 0.375, 0.525, 0.0, 0.0}));
}

TEST(AttributionGraph, PruningByHand) {
  const AttributionGraph graph = by_hand();
  const PrunedGraph most = prune_graph(graph, {.nodes = 0.9, .edges = 0.9});
  EXPECT_THAT(most.nodes, ElementsAre(true, true, false, true, true, true, true));
  // The scores of edges are 0.2125, 0.1125, 0.3375, none for f2's, 0.45, 0.15, 0.1, none, 0.2; 0.9 of their sum is
  // reached with 0.1125.
  EXPECT_THAT(most.edges, ElementsAre(true, true, true, false, false, true, true, false, false, true));
  const double total = 1.6125;
  EXPECT_THAT(most.cumulative, Pointwise(DoubleNear(1e-12), {(total - 0.075) / total, 0.975 / total, 1.0, 1.35 / total,
                                                             0.525 / total, 1.0, 1.0}));

  const PrunedGraph fewer = prune_graph(graph, {.nodes = 0.9, .edges = 0.8});
  EXPECT_THAT(fewer.nodes, ElementsAre(false, true, false, true, true, true, true)) << "f0 has no edge out any more";
  EXPECT_THAT(fewer.edges, ElementsAre(false, false, true, false, false, true, true, false, false, true));

  const PrunedGraph all = prune_graph(graph, {.nodes = 1.0, .edges = 1.0});
  EXPECT_THAT(all.nodes, ::testing::Each(true));
  EXPECT_THAT(all.edges, ::testing::Each(true));
}

GraphLabels labels() {
  return {.slug = "one",
          .scan = "model",
          .prompt = "a b c",
          .tokens = {"a", " b", "</script>\\xe2"},
          .logits = {" wait", "\n"},
          .node_share = 0.9};
}

TEST(AttributionGraph, JsonAsCircuitTracerHasIt) {
  const AttributionGraph graph = by_hand();
  const nlohmann::ordered_json json = graph_json(graph, prune_graph(graph, {.nodes = 0.9, .edges = 0.9}), labels());
  EXPECT_EQ(json["metadata"]["prompt_tokens"].size(), 3u);
  EXPECT_EQ(json["metadata"]["schema_version"], 1);
  ASSERT_EQ(json["nodes"].size(), 6u);
  const auto& feature = json["nodes"][1];
  EXPECT_EQ(feature["node_id"], "1_5_2");
  EXPECT_EQ(feature["feature"], cantor_number(1, 5));
  EXPECT_EQ(feature["layer"], "1");
  EXPECT_EQ(feature["jsNodeId"], "1_5-0");
  EXPECT_EQ(feature["feature_type"], "cross layer transcoder");
  EXPECT_EQ(feature["activation"].dump(), "0.1");
  const auto& token = json["nodes"][2];
  EXPECT_EQ(token["node_id"], "E_40_1");
  EXPECT_EQ(token["jsNodeId"], "E_40-1");
  EXPECT_EQ(token["feature"], 1);
  EXPECT_EQ(token["layer"], "E");
  const auto& logit = json["nodes"][4];
  EXPECT_EQ(logit["node_id"], "3_8_2");
  EXPECT_EQ(logit["jsNodeId"], "L_8-2");
  EXPECT_EQ(logit["clerp"], "Output \" wait\" (p=0.600)");
  EXPECT_TRUE(logit["is_target_logit"]);
  EXPECT_FALSE(json["nodes"][5]["is_target_logit"]);
  EXPECT_TRUE(logit["influence"].is_null());
  ASSERT_EQ(json["links"].size(), 6u);
  EXPECT_EQ(json["links"][2].dump(), R"({"source":"E_41_2","target":"1_5_2","weight":-3.0})");
  EXPECT_EQ(
      balances_json(graph)[0].dump(),
      R"({"node":"0_3_1","value":2.5,"edges":2.0,"left_out":0.25,"biases":0.125,"first_position":0.125,"residual":1e-07})");
  EXPECT_EQ(balances_json(graph).size(), 5u) << "tokens have none";
  EXPECT_EQ(cantor_number(0, 0), 0);
  EXPECT_EQ(cantor_number(27, 8191), (8218LL * 8219) / 2 + 8191);
}

TEST(AttributionGraph, ThePageHoldsItsDataAndEndsItsScriptItself) {
  const AttributionGraph graph = by_hand();
  const std::string page =
      graph_page(graph_json(graph, prune_graph(graph, {}), labels()), balances_json(graph), "f/{index}.html");
  EXPECT_THAT(page, HasSubstr("\\u003c/script\\u003e"));
  EXPECT_THAT(page, HasSubstr("f/{index}.html"));
  EXPECT_THAT(page, ::testing::Not(HasSubstr("/* graph")));
  EXPECT_THAT(page, ::testing::Not(HasSubstr("{/* data */}")));
}

class GrowthTest : public ::testing::Test {
 protected:
  GrowthTest() {
    const testing::TinyModel target{.layers = 4, .seed = 2}, base{.layers = 4, .seed = 7};
    testing::write_tiny_model(directory_ / "target", target);
    testing::write_tiny_model(directory_ / "base", base);
    fixture_.emplace(Device::kCpu, directory_ / "target", directory_ / "base",
                     testing::random_bundle({0, 1, 2, 3}, {.model_width = 24, .features = 30}, 0.4f));
    record_.emplace(*fixture_, testing::random_ids(12, 50, 3));
  }
  AttributionGraph grow(const GrowthOptions& options, std::int64_t most_bytes = 1 << 30) {
    AttributionPass pass = fixture_->pass(record_->record);
    return grow_graph(pass, options, most_bytes, [&](std::int64_t features) { told_.push_back(features); });
  }

  struct Recorded {
    Recorded(testing::AttributionFixture& fixture, const std::vector<std::int32_t>& ids)
        : record(fixture.record(ids)) {}
    PromptRecord record;
  };
  testing::TemporaryDirectory directory_;
  std::optional<testing::AttributionFixture> fixture_;
  std::optional<Recorded> record_;
  std::vector<std::int64_t> told_;
};

TEST_F(GrowthTest, EveryTargetsValueIsAccountedFor) {
  for (const std::int64_t most : {25, 100'000}) {
    const AttributionGraph graph = grow({.most_features = most, .batch = 8, .batches_a_ranking = 2});
    EXPECT_EQ(graph.features == 25u, most == 25);
    double left_out = 0;
    for (std::size_t node = 0; node < graph.nodes.size(); ++node) {
      if (!graph.is_feature(node) && !graph.is_logit(node)) continue;
      const Balance& balance = graph.balances[node];
      double edges = 0;
      for (auto edge = static_cast<std::size_t>(graph.offsets[node]);
           edge < static_cast<std::size_t>(graph.offsets[node + 1]); ++edge) {
        edges += static_cast<double>(graph.weights[edge]);
        const auto source = static_cast<std::size_t>(graph.sources[edge]);
        EXPECT_TRUE(!graph.is_feature(node) || source < node || !graph.is_feature(source));
      }
      left_out += std::abs(balance.left_out);
      EXPECT_NEAR(edges, balance.edges, 1e-9);
      EXPECT_NEAR(balance.edges + balance.left_out + balance.biases + balance.first_position + balance.residual,
                  graph.nodes[node].value, 1e-9);
      EXPECT_NEAR(balance.residual, 0.0, 1e-4 * (1.0 + std::abs(graph.nodes[node].value)));
    }
    EXPECT_EQ(left_out > 1e-3, most == 25) << "with all features in it, next to nothing is left out";
  }
  EXPECT_TRUE(std::ranges::is_sorted(std::span(told_).first(4)));
}

/// How many go back at once is nobody's business where the ranking is the same.
TEST_F(GrowthTest, TheGraphDoesNotDependOnBatches) {
  const AttributionGraph one = grow({.most_features = 40, .batch = 20, .batches_a_ranking = 1});
  const AttributionGraph other = grow({.most_features = 40, .batch = 4, .batches_a_ranking = 5});
  EXPECT_EQ(one.sources, other.sources);
  EXPECT_EQ(one.weights, other.weights);
}

TEST_F(GrowthTest, RefusesWhatDoesNotFit) {
  EXPECT_ERROR(grow({.most_features = 50}, 1000), ConfigError,
               ::testing::AllOf(HasSubstr("a graph of 50 of"), HasSubstr("bytes"), HasSubstr("1000 (1.00 KB) are left"),
                                HasSubstr("--max-nodes")));
  const std::int64_t bytes = contribution_bytes(record_->record, {.most_features = 50});
  EXPECT_NO_THROW(grow({.most_features = 50}, bytes));
}

}  // namespace
}  // namespace tadapt

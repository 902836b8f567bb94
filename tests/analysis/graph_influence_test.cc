// Influence toward asked-for logits of graphs written by hand.
#include "runtime/analysis/graph_influence.h"

#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

#include "tests/support/errors.h"
#include "tests/support/temporary_directory.h"

namespace tadapt {
namespace {
using ::testing::HasSubstr;
using Json = nlohmann::ordered_json;

Json node(const char* id, const char* type, double probability = 0.0) {
  return {{"node_id", id}, {"feature_type", type}, {"token_prob", probability}};
}
Json link(const char* source, const char* target, double weight) {
  return {{"source", source}, {"target", target}, {"weight", weight}};
}

class GraphInfluence : public ::testing::Test {
 protected:
  void SetUp() override {
    constexpr char kFeature[] = "cross layer transcoder";
    graph_["nodes"] = {node("E_5_1", "embedding"),   node("0_3_1", kFeature), node("0_4_2", kFeature),
                       node("0_3_2", kFeature),      node("2_7_2", kFeature), node("4_11_3", "logit", 0.5),
                       node("4_12_3", "logit", 0.25)};
    graph_["links"] = {link("2_7_2", "4_11_3", 3.0), link("0_3_1", "4_11_3", -1.0), link("0_4_2", "4_12_3", 1.0),
                       link("0_3_2", "2_7_2", 2.0),  link("E_5_1", "2_7_2", -2.0),  link("0_4_2", "2_7_2", 4.0)};
  }
  PredictionInfluence read(std::int32_t token, const std::string& adapters = "transcoder 1") {
    write_atomically(files_, folder_ / "graph-metadata.json", R"({"graphs": [{"slug": "one"}]})");
    write_atomically(files_, folder_ / "one.balances.json", R"({"adapters": "transcoder 1", "targets": []})");
    write_atomically(files_, folder_ / "one.json", graph_.dump());
    return PredictionInfluence(files_, folder_.path(), adapters, [=](std::int32_t id) { return id == token; });
  }

  RealFileSystem files_;
  testing::TemporaryDirectory folder_;
  Json graph_;
};

TEST_F(GraphInfluence, GoesBackFromTheLogitsThatAreAskedFor) {
  const PredictionInfluence found = read(11);
  // 0.5 · 3/4 for 7 of layer 2; of it 2/8 and 4/8 go on; 0.5 · 1/4 directly to 3 of layer 0.
  const std::map<std::pair<int, std::int32_t>, double> expected{
      {{0, 3}, 0.125 + 0.375 / 4}, {{0, 4}, 0.375 / 2}, {{2, 7}, 0.375}};
  ASSERT_EQ(found.influence().size(), expected.size());
  for (const auto& [feature, influence] : expected) EXPECT_DOUBLE_EQ(found.influence().at(feature), influence);
  using Ids = std::map<int, std::vector<std::int32_t>>;
  EXPECT_EQ(found.features_with(0.0).features, (Ids{{0, {3, 4}}, {2, {7}}}));
  EXPECT_EQ(found.features_with(0.25).features, (Ids{{0, {3}}, {2, {7}}}));
  EXPECT_EQ(found.features_with(0.3).features, (Ids{{2, {7}}}));
  EXPECT_EQ(read(12).features_with(0.0).features, (Ids{{0, {4}}}));
}

TEST_F(GraphInfluence, WhatDoesNotFitIsRefused) {
  EXPECT_ERROR(read(13), ConfigError, HasSubstr("no graph predicts"));
  EXPECT_ERROR(read(11, "transcoder 2"), ConfigError, HasSubstr("of the adapters 'transcoder 1'"));
  graph_["links"].push_back(link("2_7_2", "0_3_1", 1.0));
  EXPECT_ERROR(read(11), DataError, HasSubstr("links[6].source: expected a node of an earlier layer"));
  graph_["links"][6] = link("9_9_9", "0_3_1", 1.0);
  EXPECT_ERROR(read(11), DataError, HasSubstr("links[6].source: expected a node of the graph"));
  graph_["links"] = Json::array();
  graph_["nodes"][1]["node_id"] = "x_3_1";
  EXPECT_ERROR(read(11), DataError, HasSubstr("nodes[1].node_id: expected LAYER_ID_POSITION"));
  EXPECT_ERROR(PredictionInfluence(files_, folder_ / "none", "a", [](std::int32_t) { return true; }), MissingInputError,
               HasSubstr("graph-metadata.json"));
}

}  // namespace
}  // namespace tadapt

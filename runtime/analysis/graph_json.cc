#include "runtime/analysis/graph_json.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

namespace tadapt {
namespace {

using Json = nlohmann::ordered_json;

bool is_token(const AttributionGraph& graph, std::size_t node) {
  return !graph.is_feature(node) && !graph.is_logit(node);
}

/// The shortest decimal that is this float again.
double short_number(float value) { return std::stod(fmt::format("{}", value)); }

Json node_json(const AttributionGraph& graph, std::size_t index, const PrunedGraph& pruned, const GraphLabels& labels) {
  const GraphNode& node = graph.nodes[index];
  Json json = {{"node_id", node_id(graph, index)},
               {"feature", node.id},
               {"layer", std::to_string(node.layer)},
               {"ctx_idx", node.position},
               {"feature_type", "cross layer transcoder"},
               {"token_prob", 0.0},
               {"is_target_logit", false},
               {"run_idx", 0},
               {"reverse_ctx_idx", 0},
               {"jsNodeId", fmt::format("{}_{}-0", node.layer, node.id)},
               {"clerp", ""},
               {"influence", pruned.cumulative[index]},
               {"activation", nullptr}};
  if (graph.is_feature(index)) {
    json["feature"] = cantor_number(node.layer, node.id);
    json["activation"] = short_number(static_cast<float>(node.value));
  } else if (graph.is_logit(index)) {
    const std::string& text = labels.logits[index - graph.first_logit()];
    json["layer"] = std::to_string(node.layer + 1);
    json["feature_type"] = "logit";
    json["token_prob"] = node.probability;
    json["is_target_logit"] = index == graph.first_logit();
    json["jsNodeId"] = fmt::format("L_{}-{}", node.id, node.position);
    json["clerp"] = fmt::format("Output \"{}\" (p={:.3f})", text, node.probability);
    json["influence"] = nullptr;
  } else {
    json["feature"] = node.position;
    json["layer"] = "E";
    json["feature_type"] = "embedding";
    json["jsNodeId"] = fmt::format("E_{}-{}", node.id, node.position);
    json["clerp"] = fmt::format("Emb: \"{}\"", labels.tokens[static_cast<std::size_t>(node.position)]);
  }
  return json;
}

}  // namespace

std::int64_t cantor_number(std::int64_t layer, std::int64_t feature) {
  return (layer + feature) * (layer + feature + 1) / 2 + feature;
}

std::string node_id(const AttributionGraph& graph, std::size_t node) {
  const auto& [layer, position, id, value, probability] = graph.nodes[node];
  if (is_token(graph, node)) return fmt::format("E_{}_{}", id, position);
  return fmt::format("{}_{}_{}", graph.is_logit(node) ? layer + 1 : layer, id, position);
}

Json graph_metadata(const GraphLabels& labels) {
  return {{"slug", labels.slug},
          {"scan", labels.scan},
          {"transcoder_list", Json::array()},
          {"prompt_tokens", labels.tokens},
          {"prompt", labels.prompt},
          {"node_threshold", labels.node_share},
          {"schema_version", 1}};
}

Json graph_json(const AttributionGraph& graph, const PrunedGraph& pruned, const GraphLabels& labels) {
  Json nodes = Json::array(), links = Json::array();
  std::vector<std::string> ids(graph.nodes.size());
  for (std::size_t node = 0; node < graph.nodes.size(); ++node) {
    if (!pruned.nodes[node]) continue;
    ids[node] = node_id(graph, node);
    nodes.push_back(node_json(graph, node, pruned, labels));
  }
  for (std::size_t target = 0; target < graph.nodes.size(); ++target) {
    for (auto edge = static_cast<std::size_t>(graph.offsets[target]);
         edge < static_cast<std::size_t>(graph.offsets[target + 1]); ++edge) {
      if (pruned.edges[edge])
        links.push_back({{"source", ids[static_cast<std::size_t>(graph.sources[edge])]},
                         {"target", ids[target]},
                         {"weight", short_number(graph.weights[edge])}});
    }
  }
  return {{"metadata", graph_metadata(labels)},
          {"qParams",
           {{"pinnedIds", Json::array()},
            {"supernodes", Json::array()},
            {"linkType", "both"},
            {"clickedId", ""},
            {"sg_pos", ""}}},
          {"nodes", std::move(nodes)},
          {"links", std::move(links)}};
}

Json balances_json(const AttributionGraph& graph) {
  Json targets = Json::array();
  for (std::size_t node = 0; node < graph.nodes.size(); ++node) {
    if (is_token(graph, node)) continue;
    const auto& [edges, left_out, biases, first_position, residual] = graph.balances[node];
    targets.push_back({{"node", node_id(graph, node)},
                       {"value", graph.nodes[node].value},
                       {"edges", edges},
                       {"left_out", left_out},
                       {"biases", biases},
                       {"first_position", first_position},
                       {"residual", residual}});
  }
  return targets;
}

Json graph_summary(const AttributionGraph& graph, const PrunedGraph& pruned) {
  double largest = 0.0, beside = 0.0;
  for (std::size_t node = 0; node < graph.nodes.size(); ++node) {
    if (is_token(graph, node) || std::abs(graph.balances[node].residual) <= largest) continue;
    largest = std::abs(graph.balances[node].residual);
    beside = graph.nodes[node].value;
  }
  const auto kept =
      std::count(pruned.nodes.begin(), pruned.nodes.begin() + static_cast<std::ptrdiff_t>(graph.features), true);
  return {{"active_features", graph.active_features},
          {"features", graph.features},
          {"edges", graph.weights.size()},
          {"logits", graph.logits},
          {"kept_features", kept},
          {"kept_edges", std::ranges::count(pruned.edges, true)},
          {"largest_residual", largest},
          {"beside_value", beside}};
}

}  // namespace tadapt

// Attribution graphs as files: the JSON that circuit-tracer and its front-end read, and the balances of all targets.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "runtime/analysis/prune_graph.h"

namespace tadapt {

inline constexpr char kGraphMetadataFile[] = "graph-metadata.json";  ///< lists a folder's graphs
inline constexpr char kBalancesEnding[] = ".balances.json";          ///< behind a graph's name

/// What a graph's nodes are called.
struct GraphLabels {
  std::string slug;                 ///< name of the graph and its file
  std::string scan;                 ///< name of the model with its adapters
  std::string prompt;               ///< its text
  std::vector<std::string> tokens;  ///< of the prompt, as people are shown them
  std::vector<std::string> logits;  ///< the same of the graph's logits, in its order
  double node_share = 0.8;
};

/// (a + b)(a + b + 1)/2 + b: one number for a layer and a feature, as circuit-tracer counts features.
std::int64_t cantor_number(std::int64_t layer, std::int64_t feature);

/// Of a graph with its model's L: feature "{layer}_{feature}_{position}", token "E_{token}_{position}", logit
/// "{L+1}_{token}_{position}".
std::string node_id(const AttributionGraph& graph, std::size_t node);

/// The entry of graph-metadata.json.
nlohmann::ordered_json graph_metadata(const GraphLabels& labels);
/// The kept part of the graph, as circuit-tracer's Model.
nlohmann::ordered_json graph_json(const AttributionGraph& graph, const PrunedGraph& pruned, const GraphLabels& labels);
/// How each target's value came about, of the whole graph: see Balance.
nlohmann::ordered_json balances_json(const AttributionGraph& graph);
/// Sizes of the graph, and the largest residual beside its target's value.
nlohmann::ordered_json graph_summary(const AttributionGraph& graph, const PrunedGraph& pruned);

}  // namespace tadapt

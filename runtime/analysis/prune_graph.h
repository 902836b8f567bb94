// Pruning of attribution graphs to what matters for their logits, by the rules of circuit-tracer.
#pragma once

#include <vector>

#include "runtime/analysis/attribution_graph.h"

namespace tadapt {

/// p·(Â + Â² + …) of each node, where Â is |edge weight| over the sum of those into the same target, and p the logits'
/// probabilities (not counted in). `kept`: nodes whose edges count; empty: all.
std::vector<double> node_influence(const AttributionGraph& graph, const std::vector<bool>& kept = {});

struct PruningShares {
  double nodes = 0.8;
  double edges = 0.98;
};

struct PrunedGraph {
  std::vector<bool> nodes;         ///< that are kept, by node
  std::vector<bool> edges;         ///< that are kept, by edge
  std::vector<double> cumulative;  ///< by node: the share of all influence that it and more influential nodes have
};

/// Keeps the fewest nodes that have `nodes` of all influence, tokens and logits always; of the edges between them the
/// fewest that have `edges` of their scores Â'_ij·(influence_i + p_i), taken on the smaller graph; then drops features
/// without an edge in or without one out, again and again. Nodes, or edges, as good as the last that is kept are kept
/// too.
PrunedGraph prune_graph(const AttributionGraph& graph, const PruningShares& shares);

}  // namespace tadapt

#include "runtime/analysis/prune_graph.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>

namespace tadapt {
namespace {

bool counts(const std::vector<bool>& kept, std::size_t node) { return kept.empty() || kept[node]; }

/// Calls visit(edge, source, share of the target's edges that count) for these.
template <class Visit>
void for_each_share(const AttributionGraph& graph, const std::vector<bool>& kept, std::size_t target,
                    const Visit& visit) {
  const auto begin = static_cast<std::size_t>(graph.offsets[target]);
  const auto end = static_cast<std::size_t>(graph.offsets[target + 1]);
  double total = 0.0;
  const auto source = [&](std::size_t edge) { return static_cast<std::size_t>(graph.sources[edge]); };
  const auto size = [&](std::size_t edge) { return std::abs(static_cast<double>(graph.weights[edge])); };
  for (std::size_t edge = begin; edge < end; ++edge)
    if (counts(kept, source(edge))) total += size(edge);
  if (total == 0.0) return;
  for (std::size_t edge = begin; edge < end; ++edge)
    if (counts(kept, source(edge))) visit(edge, source(edge), size(edge) / total);
}

/// The score of the last one taken when the highest are taken until they have `share` of the sum.
double last_taken(std::vector<double> scores, double share) {
  if (scores.empty()) return 0.0;
  std::ranges::sort(scores, std::greater());
  const double total = std::accumulate(scores.begin(), scores.end(), 0.0);
  double reached = 0.0;
  for (const double score : scores) {
    reached += score;
    if (reached >= share * total) return score;
  }
  return scores.back();
}

std::vector<double> cumulative_shares(const std::vector<double>& influence) {
  std::vector<std::size_t> order(influence.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::ranges::sort(order, [&](std::size_t a, std::size_t b) {
    return influence[a] > influence[b] || (influence[a] == influence[b] && a < b);
  });
  const double total = std::accumulate(influence.begin(), influence.end(), 0.0);
  std::vector<double> shares(influence.size());
  double reached = 0.0;
  for (const std::size_t node : order) {
    reached += influence[node];
    shares[node] = total == 0.0 ? 0.0 : std::min(1.0, reached / total);
  }
  return shares;
}

/// Drops edges of dropped nodes, then features without an edge in or out; whether there were any of these.
bool drop_loose_features(const AttributionGraph& graph, PrunedGraph& pruned) {
  std::vector<bool> has_in(graph.nodes.size()), has_out(graph.nodes.size());
  for (std::size_t target = 0; target < graph.nodes.size(); ++target) {
    for (auto edge = static_cast<std::size_t>(graph.offsets[target]);
         edge < static_cast<std::size_t>(graph.offsets[target + 1]); ++edge) {
      const auto source = static_cast<std::size_t>(graph.sources[edge]);
      if (!pruned.nodes[target] || !pruned.nodes[source]) pruned.edges[edge] = false;
      if (!pruned.edges[edge]) continue;
      has_in[target] = true;
      has_out[source] = true;
    }
  }
  bool dropped = false;
  for (std::size_t node = 0; node < graph.features; ++node) {
    if (!pruned.nodes[node] || (has_in[node] && has_out[node])) continue;
    pruned.nodes[node] = false;
    dropped = true;
  }
  return dropped;
}

}  // namespace

std::vector<double> node_influence(const AttributionGraph& graph, const std::vector<bool>& kept) {
  std::vector<double> influence(graph.nodes.size());
  // Targets come after their sources in the order of nodes, but for tokens, which are no targets.
  for (std::size_t target = graph.nodes.size(); target-- > 0;) {
    const double mine = graph.is_logit(target) ? graph.nodes[target].probability : influence[target];
    if (!counts(kept, target) || mine == 0.0) continue;
    for_each_share(graph, kept, target,
                   [&](std::size_t, std::size_t source, double share) { influence[source] += mine * share; });
  }
  return influence;
}

PrunedGraph prune_graph(const AttributionGraph& graph, const PruningShares& shares) {
  const std::vector<double> influence = node_influence(graph);
  PrunedGraph pruned{.nodes = std::vector<bool>(graph.nodes.size(), true),
                     .edges = std::vector<bool>(graph.weights.size(), false),
                     .cumulative = cumulative_shares(influence)};
  const double lowest = last_taken(influence, shares.nodes);
  for (std::size_t node = 0; node < graph.features; ++node) pruned.nodes[node] = influence[node] >= lowest;

  const std::vector<double> inside = node_influence(graph, pruned.nodes);
  std::vector<double> scores(graph.weights.size());
  for (std::size_t target = 0; target < graph.nodes.size(); ++target) {
    if (!pruned.nodes[target]) continue;
    const double mine = inside[target] + graph.nodes[target].probability;
    for_each_share(graph, pruned.nodes, target,
                   [&](std::size_t edge, std::size_t, double share) { scores[edge] = share * mine; });
  }
  const double least = last_taken(scores, shares.edges);
  for (std::size_t edge = 0; edge < scores.size(); ++edge)
    pruned.edges[edge] = scores[edge] >= least && scores[edge] > 0;
  while (drop_loose_features(graph, pruned)) {
  }
  return pruned;
}

}  // namespace tadapt

// AttributionGraph: which features and tokens made a prompt's next token likely, by way of which features.
#pragma once

#include <functional>
#include <vector>

#include "runtime/analysis/attribution_pass.h"

namespace tadapt {

/// A feature active on a token, a token, or a logit.
struct GraphNode {
  int layer = 0;              ///< of a feature; L for logits, -1 for tokens
  std::int32_t position = 0;  ///< of the token
  std::int32_t id = 0;        ///< of feature or token
  double value = 0.0;         ///< a feature's activation, a logit above the mean logit
  double probability = 0.0;   ///< a logit's
};

/// How a target's value came about; see Contributions. `left_out`: from features that are no nodes of the graph.
struct Balance {
  double edges = 0.0, left_out = 0.0, biases = 0.0, first_position = 0.0, residual = 0.0;
};

/// Directed, without cycles: an edge leads from a token or feature to a feature of a later layer or a logit.
struct AttributionGraph {
  std::vector<GraphNode> nodes;  ///< features by layer, position and id, then tokens by position, then logits
  std::size_t features = 0;
  std::size_t logits = 0;
  std::vector<Balance> balances;      ///< by node; of tokens nothing
  std::vector<std::int64_t> offsets;  ///< [nodes + 1]: edges into node i are [offsets[i], offsets[i + 1])
  std::vector<std::int32_t> sources;  ///< by edge: a node, ascending for one target
  std::vector<float> weights;         ///< by edge
  std::int64_t active_features = 0;   ///< at positions 1 and later, whether nodes or not

  std::size_t first_logit() const { return nodes.size() - logits; }
  bool is_feature(std::size_t node) const { return node < features; }
  bool is_logit(std::size_t node) const { return node >= first_logit(); }
};

struct GrowthOptions {
  LogitChoice logits = {};
  std::int64_t most_features = 10'000;  ///< nodes
  int batch = 128;                      ///< targets that go back at once
  int batches_a_ranking = 4;            ///< after so many the features that are left are ranked again
  /// For MlpMaps, where attribution computes. With other maps contributions differ by rounding.
  std::int64_t most_map_bytes = std::int64_t{4} << 30;
};

/// Called as often as there is something to say, at least once a layer of a batch; what it throws goes through.
using OnGrowth = std::function<void(std::int64_t features_done)>;

/// Takes in the logits, then the features by what they do for these, through the features that are there: by influence
/// p·(Â + Â² + …), where Â is |contribution| with rows (targets) that sum to 1, and p the logits' probabilities. The
/// first position's features and token are no nodes. ConfigError naming the bytes when contributions may need more than
/// `most_bytes`; NonFiniteError when one is not finite.
AttributionGraph grow_graph(AttributionPass& pass, const GrowthOptions& options, std::int64_t most_bytes,
                            const OnGrowth& on_growth);

/// Bytes that grow_graph may need on the host for contributions: the longest lists of as many targets as become nodes.
std::int64_t contribution_bytes(const PromptRecord& record, const GrowthOptions& options);

}  // namespace tadapt

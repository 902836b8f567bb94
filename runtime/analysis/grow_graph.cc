#include <algorithm>
#include <cmath>
#include <numeric>

#include "runtime/analysis/attribution_graph.h"
#include "runtime/plan/estimate.h"

namespace tadapt {
namespace {

constexpr std::int32_t kNoRow = -1;

/// Features by number: layer by layer, each layer's active pairs as recorded.
class Growth {
 public:
  Growth(AttributionPass& pass, const GrowthOptions& options, const OnGrowth& on_growth)
      : pass_(pass),
        record_(pass.record()),
        options_(options),
        on_growth_(on_growth),
        rows_by_layer_(record_.layers().size()),
        row_of_(static_cast<std::size_t>(record_.pairs()), kNoRow) {}

  void run() {
    take_in(record_.logit_targets(options_.logits));
    while (features_ < options_.most_features) {
      std::vector<AttributionTarget> next = most_influential();
      if (next.empty()) return;
      // Batches of one depth share more of their way; what comes out does not depend on it.
      std::ranges::sort(next, [](const AttributionTarget& a, const AttributionTarget& b) {
        return a.layer != b.layer ? a.layer > b.layer : a.pair < b.pair;
      });
      take_in(next);
    }
  }

  AttributionGraph graph();

 private:
  struct Row {
    Contributions contributions;
    double total = 0.0;  ///< of the absolute contributions
  };

  void take_in(const std::vector<AttributionTarget>& targets) {
    const auto batch = static_cast<std::size_t>(options_.batch);
    for (std::size_t begin = 0; begin < targets.size(); begin += batch) {
      const auto part = std::span(targets).subspan(begin, std::min(batch, targets.size() - begin));
      for (Contributions& made : pass_.run(part, [&] { on_growth_(features_); })) add(std::move(made));
    }
  }

  void add(Contributions made) {
    const AttributionTarget& target = made.target;
    double total = 0.0;
    for (const float contribution : made.features) total += std::abs(contribution);
    for (const float contribution : made.tokens) total += std::abs(contribution);
    if (!std::isfinite(total))
      throw NonFiniteError("attribution: a contribution to layer {}, position {}, id {} is not finite", target.layer,
                           target.position, target.id);
    const auto row = static_cast<std::int32_t>(rows_.size());
    if (target.layer < static_cast<int>(record_.layers().size())) {
      row_of_[number(target)] = row;
      rows_by_layer_[static_cast<std::size_t>(target.layer)].push_back(row);
      ++features_;
    } else {
      logit_rows_.push_back(row);
    }
    rows_.push_back({std::move(made), total});
  }

  std::size_t number(const AttributionTarget& target) const {
    return static_cast<std::size_t>(record_.pairs_before(target.layer) + target.pair);
  }

  /// Calls visit(number of the feature, contribution) for all features that a target can have contributions of.
  template <class Visit>
  void for_each_feature(const Contributions& made, const Visit& visit) const {
    const float* next = made.features.data();
    for (int layer = 0; layer < made.target.layer; ++layer) {
      const std::vector<std::int32_t>& offsets = record_.layers()[static_cast<std::size_t>(layer)].offsets;
      if (offsets.empty()) continue;
      const auto before = static_cast<std::size_t>(record_.pairs_before(layer));
      const auto end = static_cast<std::size_t>(offsets[static_cast<std::size_t>(made.target.position) + 1]);
      for (auto pair = static_cast<std::size_t>(offsets[1]); pair < end; ++pair) visit(before + pair, *next++);
    }
  }

  /// By number. Rows of later layers come first, so a feature's own influence is whole when it is handed on.
  std::vector<double> influence() const {
    std::vector<double> influence(row_of_.size());
    const auto hand_on = [&](const Row& row, double mine) {
      if (row.total == 0.0 || mine == 0.0) return;
      const double scale = mine / row.total;
      for_each_feature(row.contributions, [&](std::size_t feature, float contribution) {
        influence[feature] += scale * static_cast<double>(std::abs(contribution));
      });
    };
    for (const std::int32_t row : logit_rows_) hand_on(at(row), at(row).contributions.target.probability);
    for (auto layer = rows_by_layer_.rbegin(); layer != rows_by_layer_.rend(); ++layer) {
      for (const std::int32_t row : *layer) hand_on(at(row), influence[number(at(row).contributions.target)]);
    }
    return influence;
  }

  /// Of the features that are not there yet.
  std::vector<AttributionTarget> most_influential() const {
    const std::vector<double> influence = this->influence();
    std::vector<std::size_t> waiting;
    for (std::size_t feature = 0; feature < influence.size(); ++feature)
      if (row_of_[feature] == kNoRow && influence[feature] > 0.0) waiting.push_back(feature);
    const std::int64_t wanted =
        std::min({static_cast<std::int64_t>(options_.batch) * options_.batches_a_ranking,
                  options_.most_features - features_, static_cast<std::int64_t>(waiting.size())});
    std::partial_sort(waiting.begin(), waiting.begin() + wanted, waiting.end(), [&](std::size_t a, std::size_t b) {
      return influence[a] > influence[b] || (influence[a] == influence[b] && a < b);
    });
    std::vector<AttributionTarget> targets;
    for (auto feature = waiting.begin(); feature != waiting.begin() + wanted; ++feature)
      targets.push_back(target_of(*feature));
    return targets;
  }

  AttributionTarget target_of(std::size_t feature) const {
    const auto number = static_cast<std::int64_t>(feature);
    int layer = 0;
    while (record_.pairs_before(layer + 1) <= number) ++layer;
    return record_.feature_target(layer, static_cast<std::int32_t>(number - record_.pairs_before(layer)));
  }

  const Row& at(std::int32_t row) const { return rows_[static_cast<std::size_t>(row)]; }
  void add_edges(Row& row, const std::vector<std::int32_t>& node_of, AttributionGraph& graph) const;

  AttributionPass& pass_;
  const PromptRecord& record_;
  const GrowthOptions& options_;
  const OnGrowth& on_growth_;
  std::vector<Row> rows_;
  std::vector<std::int32_t> logit_rows_;
  std::vector<std::vector<std::int32_t>> rows_by_layer_;
  std::vector<std::int32_t> row_of_;  ///< by feature
  std::int64_t features_ = 0;         ///< that are there
};

/// Edges into the next node of the graph. Uses up the row.
void Growth::add_edges(Row& row, const std::vector<std::int32_t>& node_of, AttributionGraph& graph) const {
  const Contributions made = std::move(row.contributions);
  Balance balance{.biases = made.biases, .first_position = made.first_position, .residual = made.residual()};
  const auto add = [&](std::int32_t source, float weight) {
    if (weight == 0.0f) return;
    graph.sources.push_back(source);
    graph.weights.push_back(weight);
    balance.edges += static_cast<double>(weight);
  };
  for_each_feature(made, [&](std::size_t feature, float contribution) {
    if (node_of[feature] == kNoRow)
      balance.left_out += static_cast<double>(contribution);
    else
      add(node_of[feature], contribution);
  });
  for (std::size_t token = 0; token < made.tokens.size(); ++token)
    add(static_cast<std::int32_t>(graph.features + token), made.tokens[token]);
  graph.offsets.push_back(static_cast<std::int64_t>(graph.sources.size()));
  graph.balances.push_back(balance);
}

AttributionGraph Growth::graph() {
  AttributionGraph graph{.nodes = {}, .balances = {}, .offsets = {0}, .sources = {}, .weights = {}};
  graph.features = static_cast<std::size_t>(features_);
  graph.logits = logit_rows_.size();
  for (const PromptRecord::Layer& layer : record_.layers())
    if (!layer.offsets.empty()) graph.active_features += layer.pairs() - layer.offsets[1];
  std::vector<std::int32_t> node_of(row_of_.size(), kNoRow);
  const auto add_node = [&](const AttributionTarget& target) {
    graph.nodes.push_back({.layer = target.layer,
                           .position = target.position,
                           .id = target.id,
                           .value = target.value,
                           .probability = target.probability});
  };
  for (std::size_t feature = 0; feature < row_of_.size(); ++feature) {
    if (row_of_[feature] == kNoRow) continue;
    node_of[feature] = static_cast<std::int32_t>(graph.nodes.size());
    add_node(at(row_of_[feature]).contributions.target);
  }
  for (std::size_t position = 1; position < record_.ids().size(); ++position)
    graph.nodes.push_back(
        {.layer = -1, .position = static_cast<std::int32_t>(position), .id = record_.ids()[position]});
  for (const std::int32_t row : logit_rows_) add_node(at(row).contributions.target);

  std::size_t edges = 0;  // at most
  for (const Row& row : rows_) edges += row.contributions.features.size() + row.contributions.tokens.size();
  graph.sources.reserve(edges);
  graph.weights.reserve(edges);
  for (const std::int32_t row : row_of_)
    if (row != kNoRow) add_edges(rows_[static_cast<std::size_t>(row)], node_of, graph);
  graph.offsets.resize(graph.first_logit() + 1, graph.offsets.back());
  graph.balances.resize(graph.first_logit());
  for (const std::int32_t row : logit_rows_) add_edges(rows_[static_cast<std::size_t>(row)], node_of, graph);
  return graph;
}

}  // namespace

std::int64_t contribution_bytes(const PromptRecord& record, const GrowthOptions& options) {
  std::vector<std::int64_t> lengths;
  const auto length = [&](int layer, std::int32_t position) {
    std::int64_t count = position;
    for (int below = 0; below < layer; ++below) {
      const std::vector<std::int32_t>& offsets = record.layers()[static_cast<std::size_t>(below)].offsets;
      if (!offsets.empty()) count += offsets[static_cast<std::size_t>(position) + 1] - offsets[1];
    }
    return count;
  };
  const auto layers = static_cast<int>(record.layers().size());
  for (int layer = 0; layer < layers; ++layer) {
    const std::vector<std::int32_t>& offsets = record.layers()[static_cast<std::size_t>(layer)].offsets;
    for (std::int32_t position = 1; !offsets.empty() && position < record.tokens(); ++position) {
      const auto at = static_cast<std::size_t>(position);
      lengths.insert(lengths.end(), static_cast<std::size_t>(offsets[at + 1] - offsets[at]), length(layer, position));
    }
  }
  std::ranges::sort(lengths, std::greater());
  if (static_cast<std::int64_t>(lengths.size()) > options.most_features)
    lengths.resize(static_cast<std::size_t>(options.most_features));
  const std::int64_t logits = options.logits.most * length(layers, static_cast<std::int32_t>(record.tokens() - 1));
  // Once as contributions, at most once more as the graph's edges with their sources.
  constexpr std::int64_t kBytesEach = 3 * sizeof(float);
  return kBytesEach * std::accumulate(lengths.begin(), lengths.end(), logits);
}

AttributionGraph grow_graph(AttributionPass& pass, const GrowthOptions& options, std::int64_t most_bytes,
                            const OnGrowth& on_growth) {
  const std::int64_t bytes = contribution_bytes(pass.record(), options);
  if (bytes > most_bytes)
    throw ConfigError(
        "a graph of {} of {} active features may need {} bytes ({}) for contributions, {} ({}) are left: take fewer "
        "nodes "
        "(--max-nodes) or a shorter prompt",
        std::min(options.most_features, pass.record().pairs()), pass.record().pairs(), bytes, readable_bytes(bytes),
        most_bytes, readable_bytes(most_bytes));
  Growth growth(pass, options, on_growth);
  growth.run();
  return growth.graph();
}

}  // namespace tadapt

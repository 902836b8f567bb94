#include "runtime/analysis/graph_influence.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <numeric>
#include <unordered_map>

#include "data/json.h"
#include "data/json_field.h"
#include "runtime/analysis/graph_json.h"

namespace tadapt {
namespace {

namespace fs = std::filesystem;

/// A node of a graph's file.
struct Node {
  int layer = -1;  ///< of tokens -1, of logits behind all others
  std::int32_t id = 0;
  bool is_feature = false;
  double influence = 0.0;
};

struct Link {
  std::size_t source, target;
  double weight;
};

/// "LAYER_ID_POSITION", as node_id() writes it; tokens have an E for the layer.
Node node_of(const JsonField& json) {
  const std::string& text = json["node_id"].string();
  const std::string& type = json["feature_type"].string();
  Node node;
  node.is_feature = type == "cross layer transcoder";
  const char *at = text.data(), *const end = text.data() + text.size();
  if (type != "embedding") {
    const auto [next, error] = std::from_chars(at, end, node.layer);
    if (error != std::errc() || node.layer < 0) json["node_id"].expected("LAYER_ID_POSITION");
    at = next;
  } else if (at < end) {
    ++at;
  }
  if (at == end || *at != '_' || std::from_chars(at + 1, end, node.id).ec != std::errc())
    json["node_id"].expected("LAYER_ID_POSITION");
  return node;
}

/// Gives each target's influence to its sources, later layers first.
void spread(std::vector<Node>& nodes, const std::vector<Link>& links) {
  std::vector<double> sums(nodes.size(), 0.0);
  for (const Link& link : links) sums[link.target] += link.weight;
  std::vector<std::size_t> order(links.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::ranges::sort(order, {}, [&](std::size_t link) { return std::pair(-nodes[links[link].target].layer, link); });
  for (const std::size_t link : order) {
    const auto& [source, target, weight] = links[link];
    if (sums[target] > 0.0) nodes[source].influence += nodes[target].influence * weight / sums[target];
  }
}

}  // namespace

PredictionInfluence::PredictionInfluence(FileSystem& files, const fs::path& graphs, const std::string& adapters,
                                         const std::function<bool(std::int32_t)>& is_asked_for)
    : adapters_(adapters) {
  const fs::path metadata = graphs / kGraphMetadataFile;
  const nlohmann::json list = parse_json(read_text(files, metadata), metadata);
  for (const nlohmann::json& entry : JsonField(list, metadata.string())["graphs"].array()) {
    const std::string& slug = JsonField(entry, metadata.string())["slug"].string();
    if (slug.find('/') != slug.npos) throw DataError("{}: a graph's name with '/'", metadata.string());
    const fs::path balances = graphs / (slug + kBalancesEnding), file = graphs / (slug + ".json");
    const nlohmann::json made = parse_json(read_text(files, balances), balances);
    const std::string& of = JsonField(made, balances.string())["adapters"].string();
    if (of != adapters)
      throw ConfigError("{}: a graph of the adapters '{}', the features are those of '{}'", file.string(), of,
                        adapters);
    add(parse_json(read_text(files, file), file), file.string(), is_asked_for);
  }
  if (logits_ == 0) throw ConfigError("{}: no graph predicts one of these tokens", graphs.string());
}

void PredictionInfluence::add(const nlohmann::json& graph, const std::string& file,
                              const std::function<bool(std::int32_t)>& is_asked_for) {
  const JsonField root(graph, file);
  const JsonField list = root["nodes"], edges = root["links"];
  std::vector<Node> nodes;
  std::unordered_map<std::string, std::size_t> places;
  for (std::size_t i = 0; i < list.array().size(); ++i) {
    const JsonField json = list.at(i);
    nodes.push_back(node_of(json));
    places[json["node_id"].string()] = i;
    if (json["feature_type"].string() != "logit" || !is_asked_for(nodes.back().id)) continue;
    nodes.back().influence = json["token_prob"].amount();
    ++logits_;
  }
  const auto node_named = [&](const JsonField& name) {
    const auto found = places.find(name.string());
    if (found == places.end()) name.expected("a node of the graph");
    return found->second;
  };
  std::vector<Link> links;
  for (std::size_t i = 0; i < edges.array().size(); ++i) {
    const JsonField edge = edges.at(i);
    if (!edge["weight"].is_number()) edge["weight"].expected("a number");
    links.push_back({node_named(edge["source"]), node_named(edge["target"]),
                     std::abs(edges.array()[i].at("weight").get<double>())});
    if (nodes[links.back().source].layer >= nodes[links.back().target].layer)
      edge["source"].expected("a node of an earlier layer than the target's");
  }
  spread(nodes, links);
  for (const Node& node : nodes)
    if (node.is_feature) influence_[{node.layer, node.id}] += node.influence;
}

FeatureSet PredictionInfluence::features_with(double share) const {
  double whole = 0.0;
  for (const auto& [feature, influence] : influence_) whole += influence;
  FeatureSet set{.name = {}, .rule = {}, .adapters = adapters_, .features = {}};
  for (const auto& [feature, influence] : influence_)
    if (influence > 0.0 && influence >= share * whole) set.features[feature.first].push_back(feature.second);
  return set;
}

}  // namespace tadapt

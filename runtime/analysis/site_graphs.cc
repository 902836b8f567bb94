#include "runtime/analysis/site_graphs.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <unordered_map>

#include "data/json.h"
#include "data/json_field.h"
#include "runtime/analysis/graph_json.h"
#include "runtime/analysis/site_chunk.h"

namespace tadapt {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

/// The numbers of "{layer or E}_{id}_{position}".
SiteGraphNode parse_node(const JsonField& node) {
  const std::string& type = node["feature_type"].string();
  const std::string& id = node["node_id"].string();
  SiteGraphNode parsed{.kind = type == "embedding" ? 't' : type == "logit" ? 'l' : 'f'};
  const char *at = id.data(), *end = at + id.size();
  bool good = true;
  const auto number = [&](std::int32_t& value) {
    const auto [next, error] = std::from_chars(at, end, value);
    good = good && error == std::errc() && value >= 0 && (next == end || *next == '_');
    at = next == end ? end : next + 1;
  };
  if (parsed.kind == 't') {
    good = id.starts_with("E_");
    at += good ? 2 : 0;
  } else {
    number(parsed.layer);
  }
  number(parsed.id);
  number(parsed.position);
  if (!good || at != end) node["node_id"].expected("LAYER_FEATURE_POSITION");
  if (parsed.kind == 'l') parsed.probability = static_cast<float>(node["token_prob"].amount());
  return parsed;
}

}  // namespace

Json SiteGraph::to_json() const {
  return {{"slug", slug}, {"tokens", tokens}, {"features", features}, {"edges", edges}};
}

SiteGraph GraphNeighbours::add(const nlohmann::json& graph, std::int32_t number, const std::set<int>& layers,
                               const std::string& source) {
  const JsonField root(graph, source);
  SiteGraph described{.slug = root["metadata"]["slug"].string(),
                      .prompt = root["metadata"]["prompt"].string(),
                      .tokens = static_cast<std::int64_t>(root["metadata"]["prompt_tokens"].array().size()),
                      .edges = static_cast<std::int64_t>(root["links"].array().size())};
  std::unordered_map<std::string, SiteGraphNode> nodes;
  for (std::size_t i = 0; i < root["nodes"].array().size(); ++i) {
    const JsonField node = root["nodes"].at(i);
    const SiteGraphNode parsed = parse_node(node);
    described.features += parsed.kind == 'f' ? 1 : 0;
    nodes[node["node_id"].string()] = parsed;
  }
  const JsonField links = root["links"];
  for (std::size_t i = 0; i < links.array().size(); ++i) {
    const JsonField link = links.at(i);
    const auto from = nodes.find(link["source"].string()), to = nodes.find(link["target"].string());
    if (from == nodes.end() || to == nodes.end()) link.expected("an edge between nodes of the graph");
    if (!link["weight"].is_number()) link["weight"].expected("a number");
    const auto weight = link.object().at("weight").get<float>();
    const SiteGraphNode &lower = from->second, &upper = to->second;
    if (upper.kind == 'f' && layers.contains(upper.layer))
      keep(of_feature_[{upper.layer, upper.id}].in, {lower, weight, number, upper.position});
    if (lower.kind == 'f' && layers.contains(lower.layer))
      keep(of_feature_[{lower.layer, lower.id}].out, {upper, weight, number, lower.position});
  }
  return described;
}

void GraphNeighbours::keep(std::vector<Edge>& edges, const Edge& edge) {
  const auto place = std::ranges::upper_bound(edges, std::abs(edge.weight), std::greater(),
                                              [](const Edge& e) { return std::abs(e.weight); });
  if (place == edges.end() && edges.size() == kNeighbours) return;
  edges.insert(place, edge);
  if (edges.size() > kNeighbours) edges.pop_back();
}

Json GraphNeighbours::to_json(const std::vector<Edge>& edges) {
  Json all = Json::array();
  for (const auto& [other, weight, graph, position] : edges)
    all.push_back({std::string(1, other.kind), other.layer, other.id, other.position,
                   shortest_decimal(other.probability), shortest_decimal(weight), graph, position});
  return all;
}

Json GraphNeighbours::of(int layer, std::int32_t feature) const {
  const auto found = of_feature_.find({layer, feature});
  if (found == of_feature_.end()) return nullptr;
  return {{"in", to_json(found->second.in)}, {"out", to_json(found->second.out)}};
}

std::vector<std::string> graph_slugs(FileSystem& files, const fs::path& directory) {
  const fs::path path = directory / kGraphMetadataFile;
  if (!files.exists(path))
    throw MissingInputError("{}: holds no attribution graphs: there is no {}", directory.string(), kGraphMetadataFile);
  const nlohmann::json json = parse_json(read_text(files, path), path);
  const JsonField graphs = JsonField(json, path.string())["graphs"];
  std::vector<std::string> slugs;
  for (std::size_t i = 0; i < graphs.array().size(); ++i) {
    const JsonField slug = graphs.at(i)["slug"];
    const fs::path name = slug.string();
    if (name.empty() || name != name.filename() || name == "." || name == "..") slug.expected("the name of a file");
    slugs.push_back(slug.string());
  }
  return slugs;
}

GraphFiles read_graph(FileSystem& files, const fs::path& directory, const std::string& slug,
                      const std::string& identity) {
  const fs::path graph = directory / (slug + ".json"), balances = directory / (slug + kBalancesEnding);
  GraphFiles read{.graph = {}, .balances = parse_json(read_text(files, balances), balances)};
  const JsonField root(read.balances, balances.string());
  if (const std::string& found = root["adapters"].string(); found != identity)
    throw ConfigError("{}: a graph of the adapters {}, not of {}", graph.string(), in_quotes(found), identity);
  const JsonField targets = root["targets"];
  for (std::size_t i = 0; i < targets.array().size(); ++i) targets.at(i)["node"].string();
  read.graph = parse_json(read_text(files, graph), graph);
  return read;
}

}  // namespace tadapt

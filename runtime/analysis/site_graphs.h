// Attribution graphs as the feature site shows them: their pages, and what stands beside a feature in them.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "data/file.h"

namespace tadapt {

/// So many edges into a feature, and as many out of it, are shown.
inline constexpr std::size_t kNeighbours = 12;

/// A node of a graph.
struct SiteGraphNode {
  char kind = 'f';         ///< 'f'eature, 't'oken, 'l'ogit
  std::int32_t layer = 0;  ///< of a feature
  std::int32_t id = 0;     ///< of the feature or token
  std::int32_t position = 0;
  float probability = 0.0f;  ///< of a logit
};

struct SiteGraph {
  std::string slug, prompt;
  std::int64_t tokens = 0, features = 0, edges = 0;
  nlohmann::ordered_json to_json() const;  ///< all but the prompt, which may be long
};

/// The strongest edges of features over all graphs, kNeighbours a feature and direction.
class GraphNeighbours {
 public:
  /// Takes in the edges of a graph (circuit-tracer's Model) for features of `layers`. DataError naming `source` and the
  /// place when it is none.
  SiteGraph add(const nlohmann::json& graph, std::int32_t number, const std::set<int>& layers,
                const std::string& source);

  /// {in: […], out: […]}, edges as [kind, layer, id, position, probability, weight, graph, position of the feature],
  /// strongest first; null when no graph has the feature.
  nlohmann::ordered_json of(int layer, std::int32_t feature) const;

 private:
  struct Edge {
    SiteGraphNode other;
    float weight = 0.0f;
    std::int32_t graph = 0, position = 0;
  };
  struct Edges {
    std::vector<Edge> in, out;
  };
  static void keep(std::vector<Edge>& edges, const Edge& edge);
  static nlohmann::ordered_json to_json(const std::vector<Edge>& edges);

  std::map<std::pair<std::int32_t, std::int32_t>, Edges> of_feature_;
};

/// Names of the graphs that `tadapt-dist attribute` wrote here, in order. MissingInputError when it did not, DataError
/// for a name that is no file's.
std::vector<std::string> graph_slugs(FileSystem& files, const std::filesystem::path& directory);

/// A graph of `directory`. ConfigError when its adapters are not those with `identity`.
struct GraphFiles {
  nlohmann::json graph, balances;
};
GraphFiles read_graph(FileSystem& files, const std::filesystem::path& directory, const std::string& slug,
                      const std::string& identity);

}  // namespace tadapt

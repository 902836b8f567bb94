#include "runtime/analysis/feature_site.h"

#include <algorithm>
#include <optional>

#include "data/html_page.h"
#include "data/json.h"
#include "runtime/analysis/graph_page.h"
#include "runtime/analysis/site_chunk.h"
#include "runtime/analysis/site_features.h"
#include "runtime/analysis/site_index.h"
#include "runtime/train/agreement.h"

namespace tadapt {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

constexpr std::int64_t kSiteVersion = 1;

/// Without a slash at its end.
fs::path folder_name(const fs::path& path) {
  const fs::path normal = path.lexically_normal();
  return normal.has_filename() ? normal : normal.parent_path();
}

bool lies_in(const fs::path& path, const fs::path& folder) {
  const fs::path relative = folder_name(path).lexically_relative(folder);
  return !relative.empty() && *relative.begin() != "..";
}

class FeatureSite {
 public:
  FeatureSite(const FeatureSiteRequest& request, const RunEnvironment& environment)
      : request_(request),
        environment_(environment),
        files_(environment.files),
        out_(folder_name(request.out)),
        partial_(out_.string() + ".tmp"),
        written_(files_, partial_) {}

  FeatureSiteSummary write() {
    agree(environment_.world, [&] { open(); });
    on_rank_zero(environment_.world, [&] {
      prepare();
      return std::string();
    });
    agree(environment_.world, [&] {
      read_graphs();
      write_texts();
      write_layers();
      written_.sync();
    });
    const std::vector<std::string> parts = environment_.world.all_gather_text(mine_, "the index of the feature site");
    on_rank_zero(environment_.world, [&] {
      publish(parts);
      return std::string();
    });
    std::int64_t features = 0;
    for (const int layer : store_->layers()) features += store_->features(layer);
    return {.features = features, .labels = labels_.size(), .graphs = static_cast<std::int64_t>(graphs_.size())};
  }

 private:
  bool is_mine(std::size_t index) const {
    return index % static_cast<std::size_t>(environment_.world.size()) ==
           static_cast<std::size_t>(environment_.world.rank());
  }

  void open();
  void prepare();
  void read_graphs();
  void write_texts();
  void write_layers();
  void publish(const std::vector<std::string>& parts);
  std::string page(const std::vector<std::string>& parts) const;

  const FeatureSiteRequest& request_;
  const RunEnvironment& environment_;
  FileSystem& files_;
  fs::path out_, partial_;
  SiteFiles written_;
  std::optional<FeatureStore> store_;
  std::optional<StoredTokens> tokens_;
  SiteLabels labels_;
  std::vector<std::string> slugs_;
  std::vector<SiteGraph> graphs_;
  GraphNeighbours neighbours_;
  std::string mine_;  ///< a line of JSON for each layer of this rank: what the page itself holds of it
};

void FeatureSite::open() {
  store_.emplace(files_, request_.features);
  if (!request_.labels.empty()) labels_ = SiteLabels(files_, request_.labels, *store_);
  if (!request_.graphs.empty()) slugs_ = graph_slugs(files_, request_.graphs);
  tokens_.emplace(store_->tokens());
}

void FeatureSite::prepare() {
  for (const fs::path& input : {request_.features, request_.graphs, request_.labels})
    if (!input.empty() && lies_in(input, out_))
      throw ConfigError("{}: would be replaced, with {} in it; choose another place", out_.string(), input.string());
  for (const fs::path& folder : {out_, partial_}) {
    if (!files_.exists(folder) || files_.exists(folder / kFeatureSiteFile)) continue;
    // "folder/." is there for folders only.
    if (!files_.exists(folder / ".") || !files_.list(folder).empty())
      throw WriteError("{}: is there and is no feature site; choose another place", folder.string());
  }
  files_.remove_all(partial_);
  files_.make_directories(partial_);
  const Json what = {{"format_version", kSiteVersion},
                     {"subject", store_->description().subject},
                     {"identity", store_->description().identity},
                     {"step", store_->description().step},
                     {"corpus", store_->description().corpus}};
  write_atomically(files_, partial_ / kFeatureSiteFile, what.dump(1) + "\n");
  for (const char* folder : {"data/index", "data/features", "data/tokens", "graphs"})
    files_.make_directories(partial_ / folder);
}

/// Every rank reads all graphs, for the features of its layers.
void FeatureSite::read_graphs() {
  std::set<int> layers;
  for (std::size_t i = 0; i < store_->layers().size(); ++i)
    if (is_mine(i)) layers.insert(store_->layers()[i]);
  for (std::size_t i = 0; i < slugs_.size(); ++i) {
    environment_.heartbeat("reading attribution graphs");
    const GraphFiles files = read_graph(files_, request_.graphs, slugs_[i], store_->description().identity);
    graphs_.push_back(neighbours_.add(files.graph, static_cast<std::int32_t>(i), layers,
                                      (request_.graphs / (slugs_[i] + ".json")).string()));
    graphs_.back().slug = slugs_[i];
    if (is_mine(i))
      written_.write(fs::path("graphs") / (slugs_[i] + ".html"),
                     graph_page(Json(files.graph), Json(files.balances.at("targets")),
                                "../index.html#/feature/{layer}/{feature}"));
  }
}

void FeatureSite::write_texts() {
  if (environment_.world.rank() == 0) {
    Json prompts = Json::array();
    for (const SiteGraph& graph : graphs_) prompts.push_back(graph.prompt);
    written_.write_chunk("prompts", prompts);
    written_.write_chunk("vocabulary", vocabulary_chunk(*tokens_));
    written_.write_chunk("sequences", sequences_chunk(*tokens_));
  }
  const auto count = static_cast<std::int64_t>(tokens_->ids().size());
  for (std::int64_t chunk = 0; chunk * kTokensAChunk < count; ++chunk) {
    if (!is_mine(static_cast<std::size_t>(chunk))) continue;
    environment_.heartbeat("writing tokens");
    written_.write_chunk(fmt::format("tokens/{:05d}", chunk), tokens_chunk(*tokens_, chunk * kTokensAChunk));
  }
}

void FeatureSite::write_layers() {
  const std::vector<int> layers = store_->layers();
  for (std::size_t i = 0; i < layers.size(); ++i) {
    if (!is_mine(i)) continue;
    const StoredLayer layer = store_->layer(layers[i]);
    LayerIndex index = make_layer_index(layer, *tokens_, labels_);
    written_.write_chunk(fmt::format("index/{:03d}", layer.layer()), index.chunk);
    const std::string folder = fmt::format("features/{:03d}", layer.layer());
    files_.make_directories(partial_ / "data" / folder);
    Json begins = Json::array();  // the number of each chunk's first feature
    for (std::int64_t first = 0; first < layer.features(); first += kFeaturesAChunk) {
      environment_.heartbeat(fmt::format("writing features of layer {}", layer.layer()));
      begins.push_back(layer.feature(first).id);
      written_.write_chunk(fmt::format("{}/{:04d}", folder, first / kFeaturesAChunk),
                           features_chunk(layer, first, *tokens_, labels_, neighbours_));
    }
    index.summary["begins"] = std::move(begins);
    Json rows = Json::array();
    for (const FirstRow& row : index.first) rows.push_back(row.row);
    mine_ += Json{{"layer", index.summary}, {"rows", rows}}.dump() + "\n";
  }
}

std::string FeatureSite::page(const std::vector<std::string>& parts) const {
  std::vector<FirstRow> rows;
  std::vector<Json> layers;
  for (const std::string& part : parts) {
    for (std::size_t begin = 0, end; (end = part.find('\n', begin)) != part.npos; begin = end + 1) {
      const Json layer = Json::parse(part.substr(begin, end - begin));
      layers.push_back(layer["layer"]);
      for (const Json& row : layer["rows"]) rows.push_back({row[2], row[0], row[1], row});
    }
  }
  std::ranges::sort(layers, {}, [](const Json& layer) { return layer["layer"].get<int>(); });
  std::ranges::sort(rows, std::less());
  const FeatureStoreDescription& from = store_->description();
  Json data = from.to_json();
  data["made_by"] = "tadapt " TADAPT_VERSION;
  data["vocabulary"] = tokens_->vocabulary_size();
  data["features_a_chunk"] = kFeaturesAChunk;
  data["tokens_a_chunk"] = kTokensAChunk;
  data["layers"] = layers;
  data["classes"] = labels_.classes();
  data["labels"] = labels_.size();
  data["graphs"] = Json::array();
  for (const SiteGraph& graph : graphs_) data["graphs"].push_back(graph.to_json());
  data["first"] = Json::array();
  for (std::size_t i = 0; i < std::min(rows.size(), kFirstRows); ++i) data["first"].push_back(rows[i].row);
  std::string script;
  for (const char* file : {"chunks.js", "text.js", "features.js", "query.js", "elements.js", "overview.js", "list.js",
                           "bars.js", "examples.js", "feature.js", "graphs.js", "main.js"})
    script += feature_site_file(file);
  const std::string text = text_for_script(data.dump(-1, ' ', false, Json::error_handler_t::replace));
  return filled_page(
      feature_site_file("site.html"),
      {{"/* site.css */", feature_site_file("site.css")}, {"{/* data */}", text}, {"/* site.js */", script}});
}

void FeatureSite::publish(const std::vector<std::string>& parts) {
  write_atomically(files_, partial_ / "index.html", page(parts));
  files_.remove_all(out_);
  files_.rename(partial_, out_);
  files_.sync_directory(out_.has_parent_path() ? out_.parent_path() : fs::path("."));
}

}  // namespace

FeatureSiteSummary write_feature_site(const FeatureSiteRequest& request, const RunEnvironment& environment) {
  return FeatureSite(request, environment).write();
}

void require_feature_site(FileSystem& files, const fs::path& directory) {
  if (!files.exists(directory / kFeatureSiteFile) || !files.exists(directory / "index.html"))
    throw MissingInputError("{}: holds no feature site", directory.string());
}

}  // namespace tadapt

#include "runtime/analysis/graph_page.h"

#include <nlohmann/json.hpp>
#include <set>

#include "data/html_page.h"
#include "data/json.h"

namespace tadapt {
namespace {
using Json = nlohmann::ordered_json;
}  // namespace

std::string graph_page(const Json& graph, const Json& balances, const std::string& feature_url) {
  std::set<std::string> shown;
  for (const Json& node : graph["nodes"]) shown.insert(node["node_id"].get<std::string>());
  Json of_shown = Json::array();
  for (const Json& balance : balances)
    if (shown.contains(balance["node"].get<std::string>())) of_shown.push_back(balance);
  const Json data = {
      {"made_by", "tadapt " TADAPT_VERSION}, {"graph", graph}, {"balances", of_shown}, {"feature_url", feature_url}};
  const std::string text = text_for_script(data.dump(-1, ' ', false, Json::error_handler_t::replace));
  return filled_page(graph_page_file("graph.html"), {{"/* graph.css */", graph_page_file("graph.css")},
                                                     {"{/* data */}", text},
                                                     {"/* graph.js */", graph_page_file("graph.js")}});
}

}  // namespace tadapt

#include "runtime/analysis/graph_page.h"

#include <set>

#include "data/json.h"

namespace tadapt {
namespace {

using Json = nlohmann::ordered_json;

void replace(std::string& page, std::string_view mark, std::string_view text) {
  page.replace(page.find(mark), mark.size(), text);
}

}  // namespace

std::string graph_page(const Json& graph, const Json& balances, const std::string& feature_url) {
  std::set<std::string> shown;
  for (const Json& node : graph["nodes"]) shown.insert(node["node_id"].get<std::string>());
  Json of_shown = Json::array();
  for (const Json& balance : balances)
    if (shown.contains(balance["node"].get<std::string>())) of_shown.push_back(balance);
  const Json data = {
      {"made_by", "tadapt " TADAPT_VERSION}, {"graph", graph}, {"balances", of_shown}, {"feature_url", feature_url}};
  std::string page(graph_page_file("graph.html"));
  replace(page, "/* graph.css */", graph_page_file("graph.css"));
  replace(page, "/* graph.js */", graph_page_file("graph.js"));
  // The data last: no mark is looked for in what others wrote.
  replace(page, "{/* data */}", text_for_script(data.dump(-1, ' ', false, Json::error_handler_t::replace)));
  return page;
}

}  // namespace tadapt

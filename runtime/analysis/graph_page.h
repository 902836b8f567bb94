// The page that shows one attribution graph: a single HTML file that needs no network.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

namespace tadapt {

/// The content of one of runtime/analysis/graph_page/, which are part of the program (cmake/embed.cmake).
std::string_view graph_page_file(std::string_view name);

/// `graph` as graph_json makes it, `balances` as balances_json. `feature_url`: where a feature is described, with
/// {layer}, {feature} and {index} (its Cantor number) in it; empty: nowhere.
std::string graph_page(const nlohmann::ordered_json& graph, const nlohmann::ordered_json& balances,
                       const std::string& feature_url);

}  // namespace tadapt

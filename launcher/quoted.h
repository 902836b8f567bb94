// Text from outside as it may stand in a one-line message.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace tadapt {

/// `text` in double quotes: at most its first 60 bytes, control characters and broken UTF-8 escaped.
inline std::string quoted(const std::string& text) {
  const std::string shown = text.size() <= 60 ? text : text.substr(0, 60) + "…";
  return nlohmann::json(shown).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

}  // namespace tadapt

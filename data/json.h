// JSON from files that nobody vouches for.
#pragma once

#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

namespace tadapt {

/// Parses a whole JSON text: no key twice in an object, at most 64 levels deep, nothing after the value. DataError
/// naming `source` and the place.
nlohmann::json parse_json(std::string_view text, const std::filesystem::path& source);

/// A foreign name as it may stand in a one-line message: in double quotes, control characters escaped, long ones cut.
std::string in_quotes(std::string_view text);

/// JSON text as it may stand inside an HTML script element: what could end that is escaped.
std::string text_for_script(std::string_view json);

}  // namespace tadapt

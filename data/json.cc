// Strict parsing on top of nlohmann-json.
#include "data/json.h"

#include <nlohmann/json.hpp>
#include <unordered_set>
#include <vector>

#include "kernels/core/error.h"

namespace tadapt {
namespace {
constexpr int kDeepest = 64;

/// nlohmann's message without its tag and without the text it quotes from the file.
std::string short_reason(const std::string& what) {
  const std::size_t tag = what.find("] ");
  const std::string text = tag == std::string::npos ? what : what.substr(tag + 2);
  return text.substr(0, text.find("; last read"));
}
}  // namespace

nlohmann::json parse_json(std::string_view text, const std::filesystem::path& source) {
  using Event = nlohmann::json::parse_event_t;
  // The parser takes a zero byte for the end of its input and would not look at what follows.
  if (text.find('\0') != text.npos) throw DataError("{}: not valid JSON: a zero byte", source.string());
  std::vector<std::unordered_set<std::string>> keys;
  const auto check = [&](int depth, Event event, nlohmann::json& parsed) {
    if (depth > kDeepest) throw DataError("{}: JSON nested deeper than {} levels", source.string(), kDeepest);
    if (event == Event::object_start) keys.emplace_back();
    if (event == Event::object_end) keys.pop_back();
    if (event == Event::key && !keys.back().insert(parsed.get<std::string>()).second) {
      throw DataError("{}: key {} twice in one JSON object", source.string(), in_quotes(parsed.get<std::string>()));
    }
    return true;
  };
  try {
    return nlohmann::json::parse(text.begin(), text.end(), check);
  } catch (const nlohmann::json::exception& error) {
    throw DataError("{}: not valid JSON: {}", source.string(), short_reason(error.what()));
  }
}

std::string in_quotes(std::string_view text) {
  constexpr std::size_t kLongest = 200;
  const std::string whole =
      nlohmann::json(text.substr(0, kLongest)).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  return text.size() > kLongest ? whole + "…" : whole;
}

std::string text_for_script(std::string_view json) {
  std::string safe;
  safe.reserve(json.size());
  for (const char letter : json) {
    if (letter == '<')
      safe += "\\u003c";
    else if (letter == '>')
      safe += "\\u003e";
    else if (letter == '&')
      safe += "\\u0026";
    else
      safe += letter;
  }
  return safe;
}

}  // namespace tadapt

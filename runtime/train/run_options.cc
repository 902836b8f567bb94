// The text form of a choice of layers.
#include "runtime/train/run_options.h"

#include <charconv>
#include <set>

namespace tadapt {
namespace {

int parse_layer_number(const std::string& text, std::string_view piece) {
  int number = 0;
  const auto [end, error] = std::from_chars(piece.data(), piece.data() + piece.size(), number);
  if (error != std::errc() || end != piece.data() + piece.size() || number < 0)
    throw ConfigError("layers '{}': expected \"all\" or a list such as \"0,3,5-8\", found '{}'", text, piece);
  return number;
}

}  // namespace

std::vector<LayerRange> parse_layer_ranges(const std::string& text) {
  std::vector<LayerRange> ranges;
  for (std::size_t begin = 0; begin <= text.size();) {
    const std::size_t comma = std::min(text.find(',', begin), text.size());
    const std::string_view piece = std::string_view(text).substr(begin, comma - begin);
    const std::size_t dash = piece.find('-');
    const int first = parse_layer_number(text, piece.substr(0, dash));
    const int last = dash == piece.npos ? first : parse_layer_number(text, piece.substr(dash + 1));
    if (last < first) throw ConfigError("layers '{}': the range '{}' runs backwards", text, piece);
    ranges.push_back({first, last});
    begin = comma + 1;
  }
  return ranges;
}

std::vector<int> parse_layers(const std::string& text, int layer_count) {
  const std::vector<LayerRange> ranges =
      text == "all" ? std::vector<LayerRange>{{0, layer_count - 1}} : parse_layer_ranges(text);
  std::set<int> layers;
  for (const auto& [first, last] : ranges) {
    if (last >= layer_count)
      throw ConfigError("layers '{}': layer {} of a {}-layer model (its layers are 0 to {})", text, last, layer_count,
                        layer_count - 1);
    for (int layer = first; layer <= last; ++layer) layers.insert(layer);
  }
  return {layers.begin(), layers.end()};
}

}  // namespace tadapt

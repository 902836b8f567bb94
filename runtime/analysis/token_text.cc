#include "runtime/analysis/token_text.h"

#include <fmt/format.h>

#include "data/unicode.h"

namespace tadapt {
namespace {

void append_escaped(std::string& text, char byte) {
  text += fmt::format("\\x{:02x}", static_cast<unsigned char>(byte));
}

void append_valid(std::string& text, std::string_view bytes) {
  for (const char byte : bytes) {
    const bool control = (static_cast<unsigned char>(byte) < 0x20 && byte != '\n' && byte != '\t') || byte == 0x7f;
    if (control)
      append_escaped(text, byte);
    else
      text += byte;
  }
}

}  // namespace

std::string shown_text(std::string_view bytes) {
  std::string text;
  while (!bytes.empty()) {
    const auto bad = find_invalid_utf8(bytes);
    append_valid(text, bytes.substr(0, bad.value_or(bytes.size())));
    if (!bad) break;
    append_escaped(text, bytes[*bad]);
    bytes.remove_prefix(*bad + 1);
  }
  return text;
}

}  // namespace tadapt

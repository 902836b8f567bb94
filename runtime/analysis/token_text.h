// The text of tokens as people are shown it: never garbage.
#pragma once

#include <string>
#include <string_view>

namespace tadapt {

/// Bytes that are whole UTF-8 characters as they are; pieces of a character, and control characters other than new line
/// and tab, as `\xe2`. So the result is well-formed UTF-8.
std::string shown_text(std::string_view bytes);

}  // namespace tadapt

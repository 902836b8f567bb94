// The few Unicode facts that text needs: well-formed UTF-8, NFC, white space, and the byte-level alphabet of GPT-2.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace tadapt {

/// Offset of the first byte that is not part of well-formed UTF-8 (surrogates and overlong forms are not), if any.
std::optional<std::size_t> find_invalid_utf8(std::string_view text);

/// True when NFC might change `text`: it has a code point of U+0300 or above. Everything below is already composed.
bool may_need_nfc(std::string_view text);

/// Canonical composition (NFC) of well-formed UTF-8; DataError when it is not. Tables of Unicode 15: `tokenizers` has
/// older ones, so that some sixty marks given a combining class since then stand in another order among other marks.
std::string to_nfc(std::string_view text);

/// Unicode's White_Space as the inside of a regular expression's bracket: what `\s` means to `tokenizers` (PCRE2's own
/// `\s` has U+180E besides).
inline constexpr std::string_view kWhiteSpaceRanges =
    R"(\x{9}-\x{d}\x{20}\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})";

/// Bytes of white space at the start, and at the end, of well-formed UTF-8.
std::size_t leading_white_space(std::string_view text);
std::size_t trailing_white_space(std::string_view text);

/// The bytes that a byte-level token such as "Ġthe" stands for; none when a character is outside GPT-2's alphabet of
/// 256 (printable Latin-1 stands for itself, the other bytes in order for U+0100 and up).
std::optional<std::string> byte_level_bytes(std::string_view token);

}  // namespace tadapt

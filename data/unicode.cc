// UTF-8 checks, NFC through utf8proc, and the byte-level alphabet.
#include "data/unicode.h"

#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <memory>
#include <new>

#include "kernels/core/error.h"

namespace tadapt {
namespace {

const utf8proc_uint8_t* bytes_of(std::string_view text) {
  return reinterpret_cast<const utf8proc_uint8_t*>(text.data());
}

bool is_white_space(std::int32_t c) {
  return (c >= 0x9 && c <= 0xd) || c == 0x20 || c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) ||
         c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

constexpr bool stands_for_itself(int byte) {
  return (byte >= '!' && byte <= '~') || (byte >= 0xa1 && byte <= 0xac) || (byte >= 0xae && byte <= 0xff);
}

constexpr int kAlphabetEnd = 0x144;

/// Byte of each code point of the byte-level alphabet, -1 where there is none.
constexpr std::array<std::int16_t, kAlphabetEnd> make_alphabet() {
  std::array<std::int16_t, kAlphabetEnd> byte_of{};
  for (auto& entry : byte_of) entry = -1;
  int next = 0x100;
  for (int byte = 0; byte < 256; ++byte) {
    byte_of[static_cast<std::size_t>(stands_for_itself(byte) ? byte : next++)] = static_cast<std::int16_t>(byte);
  }
  return byte_of;
}

constexpr auto kByteOf = make_alphabet();

}  // namespace

std::optional<std::size_t> find_invalid_utf8(std::string_view text) {
  std::size_t at = 0;
  while (at < text.size()) {
    if (static_cast<unsigned char>(text[at]) < 0x80) {
      ++at;
      continue;
    }
    std::int32_t code_point = 0;
    const auto length =
        utf8proc_iterate(bytes_of(text) + at, static_cast<std::ptrdiff_t>(text.size() - at), &code_point);
    if (length <= 0) return at;
    at += static_cast<std::size_t>(length);
  }
  return std::nullopt;
}

bool may_need_nfc(std::string_view text) {
  return std::any_of(text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) >= 0xcc; });
}

std::string to_nfc(std::string_view text) {
  if (!may_need_nfc(text)) return std::string(text);
  utf8proc_uint8_t* composed = nullptr;
  const auto options = static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE);
  const auto length = utf8proc_map(bytes_of(text), static_cast<std::ptrdiff_t>(text.size()), &composed, options);
  const std::unique_ptr<utf8proc_uint8_t, decltype(&std::free)> owner(composed, &std::free);
  if (length == UTF8PROC_ERROR_NOMEM) throw std::bad_alloc();
  if (length < 0) throw DataError("a text to normalise: {}", utf8proc_errmsg(length));
  return std::string(reinterpret_cast<const char*>(composed), static_cast<std::size_t>(length));
}

std::size_t leading_white_space(std::string_view text) {
  std::size_t at = 0;
  while (at < text.size()) {
    std::int32_t code_point = 0;
    const auto length =
        utf8proc_iterate(bytes_of(text) + at, static_cast<std::ptrdiff_t>(text.size() - at), &code_point);
    if (length <= 0 || !is_white_space(code_point)) break;
    at += static_cast<std::size_t>(length);
  }
  return at;
}

std::size_t trailing_white_space(std::string_view text) {
  std::size_t end = text.size();
  while (end > 0) {
    std::size_t begin = end - 1;
    while (begin > 0 && (static_cast<unsigned char>(text[begin]) & 0xc0) == 0x80) --begin;
    std::int32_t code_point = 0;
    const auto length = utf8proc_iterate(bytes_of(text) + begin, static_cast<std::ptrdiff_t>(end - begin), &code_point);
    if (length <= 0 || !is_white_space(code_point)) break;
    end = begin;
  }
  return text.size() - end;
}

std::optional<std::string> byte_level_bytes(std::string_view token) {
  std::string bytes;
  for (std::size_t at = 0; at < token.size();) {
    std::int32_t code_point = 0;
    const auto length =
        utf8proc_iterate(bytes_of(token) + at, static_cast<std::ptrdiff_t>(token.size() - at), &code_point);
    if (length <= 0 || code_point >= kAlphabetEnd) return std::nullopt;
    const std::int16_t byte = kByteOf[static_cast<std::size_t>(code_point)];
    if (byte < 0) return std::nullopt;
    bytes.push_back(static_cast<char>(byte));
    at += static_cast<std::size_t>(length);
  }
  return bytes;
}

}  // namespace tadapt

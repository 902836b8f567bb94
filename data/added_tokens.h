// Tokens that are looked for in the text before it is split into words: chat markers, `<think>`, end of sentence.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace tadapt {

/// One entry of tokenizer.json's `added_tokens`.
struct AddedToken {
  std::int32_t id = 0;
  std::string content;
  bool strip_left = false;   ///< `lstrip`: swallows white space before it
  bool strip_right = false;  ///< `rstrip`: swallows white space after it
  bool normalized = false;   ///< looked for in the normalised text instead of the original one

  bool operator==(const AddedToken&) const = default;
};

/// A part of a text: an added token (id ≥ 0) or plain text (id −1).
struct TextPiece {
  std::int32_t id = -1;
  std::size_t begin = 0, end = 0;  ///< bytes
};

/// Finds added tokens: the leftmost first, of those starting at the same place the longest, without overlap.
class AddedTokenFinder {
 public:
  AddedTokenFinder() = default;
  /// `tokens` have non-empty contents; of two with the same content the one of lower id is found.
  explicit AddedTokenFinder(std::vector<AddedToken> tokens);

  /// Appends the pieces of `text` (well-formed UTF-8) in order; an empty text has none.
  void split(std::string_view text, std::vector<TextPiece>& pieces) const;

 private:
  const AddedToken* longest_at(std::string_view text, std::size_t at) const;

  std::vector<AddedToken> tokens_;       // sorted by content
  std::array<bool, 256> starts_here_{};  // first bytes of all contents
};

}  // namespace tadapt

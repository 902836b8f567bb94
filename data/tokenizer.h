// The tokenizer of a Hugging Face model directory: byte-level BPE, the same ids as transformers 4.57.1.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "data/added_tokens.h"
#include "data/byte_pairs.h"
#include "data/file.h"
#include "data/split_pattern.h"
#include "data/tokenizer_spec.h"

namespace tadapt {

/// Immutable, so threads may share it; each thread encodes through a TokenEncoder of its own.
class Tokenizer {
 public:
  /// Reads tokenizer.json and tokenizer_config.json; see read_tokenizer_spec for what is supported and refused.
  static Tokenizer load(FileSystem& files, const std::filesystem::path& directory);
  explicit Tokenizer(TokenizerSpec spec);

  /// The ids of `text` as transformers' `encode(text, add_special_tokens=False)`: no BOS is put before it, and added
  /// tokens inside it are recognised, special or not. DataError when it is not well-formed UTF-8, is over 1 GiB, or has
  /// a byte without a token.
  std::vector<std::int32_t> encode(std::string_view text) const;
  /// The bytes of `ids` one after the other, exact also where a token holds a part of a character. An id without a
  /// token (a padding row of a model's vocabulary) has no bytes. decode(encode(x)) is NFC(x), or x without a
  /// normalizer.
  std::string decode(std::span<const std::int32_t> ids) const;
  std::string_view token_bytes(std::int32_t id) const;

  /// Id of a token as the files write it: an added token's content, or a vocabulary entry such as "Ġthe".
  std::optional<std::int32_t> id_of(const std::string& token) const;
  std::optional<std::int32_t> bos_id() const { return id_of(spec_.bos); }
  std::optional<std::int32_t> eos_id() const { return id_of(spec_.eos); }
  /// Contents of bos_token and eos_token, which encode() recognises; empty when there is none.
  const std::string& bos() const { return spec_.bos; }
  const std::string& eos() const { return spec_.eos; }
  /// Whether transformers puts BOS before, and EOS after, a text that is not rendered by a chat format.
  bool adds_bos() const { return spec_.adds_bos; }
  bool adds_eos() const { return spec_.adds_eos; }

  /// One more than the highest id.
  std::int32_t vocabulary_size() const { return static_cast<std::int32_t>(bytes_.size()); }
  /// xxh3 of both files.
  std::uint64_t fingerprint() const { return spec_.fingerprint; }
  /// Path of tokenizer.json, for messages.
  const std::string& file() const { return spec_.file; }

 private:
  friend class TokenEncoder;
  TokenizerSpec spec_;
  BytePairEncoder byte_pairs_;
  std::vector<SplitPattern> patterns_;
  AddedTokenFinder original_tokens_, normalized_tokens_;  // looked for before, and after, normalisation
  std::unordered_map<std::string, std::int32_t> added_ids_;
  std::vector<std::string> bytes_;  // by id
};

/// Encodes texts one after the other, remembering the words met last: for one thread at a time. The tokenizer must
/// outlive it. Ids do not depend on what was encoded before.
class TokenEncoder {
 public:
  explicit TokenEncoder(const Tokenizer& tokenizer) : tokenizer_(tokenizer) {}

  /// Appends what Tokenizer::encode gives.
  void encode(std::string_view text, std::vector<std::int32_t>& ids) { encode(text, text.size(), ids); }
  /// The same; returns the index in `ids` of the first token that begins at or after byte `mark` of `text`, the
  /// border of a character (where normalisation moves bytes: of the normalised text, the mark at the length of what
  /// comes before it, normalised).
  std::size_t encode(std::string_view text, std::size_t mark, std::vector<std::int32_t>& ids);

 private:
  struct Output {
    std::vector<std::int32_t>& ids;
    std::optional<std::size_t> marked;
  };
  void encode_plain(std::string_view text, std::optional<std::size_t> mark, Output& output);
  void encode_normalized(std::string_view text, std::optional<std::size_t> mark, Output& output);
  void encode_words(std::string_view text, std::size_t level, std::vector<std::int32_t>& ids);

  const Tokenizer& tokenizer_;
  MatchSpace match_space_;
  BytePairSpace byte_pair_space_;
  std::vector<TextPiece> pieces_, normalized_pieces_;
};

}  // namespace tadapt

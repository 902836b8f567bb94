// What a Hugging Face directory says about its byte-level BPE tokenizer, as plain, checked values.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <unordered_map>
#include <vector>

#include "data/added_tokens.h"
#include "data/byte_pairs.h"
#include "data/file.h"

namespace tadapt {

class JsonField;

/// Ids lie below this, so that a wild id cannot ask for memory without bound.
inline constexpr std::int32_t kTokenIdCap = 1 << 24;

struct TokenizerSpec {
  std::string file;                                   ///< tokenizer.json, for messages
  std::unordered_map<std::string, std::int32_t> ids;  ///< model.vocab, as written there ("Ġthe")
  BytePairVocabulary byte_pairs;
  bool nfc = false;
  std::vector<std::string> patterns;  ///< of the `Split` pre-tokenizers, in order, in Oniguruma's syntax
  std::vector<AddedToken> added;      ///< distinct contents and ids
  std::string bos, eos;               ///< contents of bos_token and eos_token; empty: none
  bool adds_bos = false;              ///< transformers puts bos_token before a text
  bool adds_eos = false;              ///< transformers puts eos_token after a text
  std::uint64_t fingerprint = 0;      ///< xxh3 of both files
};

/// Reads tokenizer.json and tokenizer_config.json of `directory` (no other file) as transformers 4.57.1 does.
/// Supported: model BPE with every option at rest but ignore_merges; normalizer none or NFC; pre-tokenizer ByteLevel,
/// or a Sequence of Split(Regex, Isolated) and a last ByteLevel; added tokens with lstrip, rstrip and normalized;
/// decoder ByteLevel; post-processors ByteLevel and TemplateProcessing. Truncation and padding are ignored, as
/// transformers does. DataError naming file and key for anything else and for what contradicts itself.
TokenizerSpec read_tokenizer_spec(FileSystem& files, const std::filesystem::path& directory);

namespace detail {

/// Fills ids, byte_pairs, nfc and patterns from tokenizer.json.
void read_tokenizer_model(const JsonField& tokenizer, TokenizerSpec& spec);

/// Fills added, bos, eos, adds_bos and adds_eos from both files; `spec.ids` must be filled.
void read_special_tokens(const JsonField& tokenizer, const JsonField& config, TokenizerSpec& spec);

}  // namespace detail
}  // namespace tadapt

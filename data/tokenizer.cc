// Text to ids in the order of `tokenizers`: added tokens, NFC, added tokens again, splitting, byte-pair merging.
#include "data/tokenizer.h"

#include <algorithm>
#include <utility>

#include "data/unicode.h"
#include "kernels/core/error.h"

namespace tadapt {
namespace {

constexpr std::size_t kLongestText = std::size_t{1} << 30;

AddedTokenFinder finder_of(const TokenizerSpec& spec, bool normalized) {
  std::vector<AddedToken> tokens;
  for (AddedToken token : spec.added) {
    if (token.normalized != normalized) continue;
    if (normalized && spec.nfc) token.content = to_nfc(token.content);
    tokens.push_back(std::move(token));
  }
  return AddedTokenFinder(std::move(tokens));
}

std::vector<std::string> token_table(const TokenizerSpec& spec) {
  std::int32_t highest = -1;
  for (const auto& [token, id] : spec.ids) highest = std::max(highest, id);
  for (const AddedToken& token : spec.added) highest = std::max(highest, token.id);
  std::vector<std::string> bytes(static_cast<std::size_t>(highest + 1));
  for (const auto& [token, id] : spec.ids) {
    bytes[static_cast<std::size_t>(id)] = byte_level_bytes(token).value_or(token);
  }
  for (const AddedToken& token : spec.added) bytes[static_cast<std::size_t>(token.id)] = token.content;
  return bytes;
}

/// `mark` as an offset from `begin`, when it lies between the two ends.
std::optional<std::size_t> mark_within(std::optional<std::size_t> mark, const TextPiece& piece) {
  if (!mark || *mark <= piece.begin || *mark >= piece.end) return std::nullopt;
  return *mark - piece.begin;
}

}  // namespace

Tokenizer Tokenizer::load(FileSystem& files, const std::filesystem::path& directory) {
  return Tokenizer(read_tokenizer_spec(files, directory));
}

Tokenizer::Tokenizer(TokenizerSpec spec)
    : spec_(std::move(spec)),
      byte_pairs_(std::move(spec_.byte_pairs)),
      original_tokens_(finder_of(spec_, false)),
      normalized_tokens_(finder_of(spec_, true)),
      bytes_(token_table(spec_)) {
  for (const std::string& pattern : spec_.patterns) patterns_.emplace_back(pattern, spec_.file);
  for (const AddedToken& token : spec_.added) added_ids_.emplace(token.content, token.id);
}

std::vector<std::int32_t> Tokenizer::encode(std::string_view text) const {
  std::vector<std::int32_t> ids;
  TokenEncoder(*this).encode(text, ids);
  return ids;
}

std::string Tokenizer::decode(std::span<const std::int32_t> ids) const {
  std::string text;
  for (const std::int32_t id : ids) text += token_bytes(id);
  return text;
}

std::string_view Tokenizer::token_bytes(std::int32_t id) const {
  if (id < 0 || id >= vocabulary_size()) return {};
  return bytes_[static_cast<std::size_t>(id)];
}

std::optional<std::int32_t> Tokenizer::id_of(const std::string& token) const {
  for (const auto* ids : {&added_ids_, &spec_.ids}) {
    const auto found = ids->find(token);
    if (found != ids->end()) return found->second;
  }
  return std::nullopt;
}

std::size_t TokenEncoder::encode(std::string_view text, std::size_t mark, std::vector<std::int32_t>& ids) {
  if (text.size() > kLongestText) {
    throw DataError("{}: a text of {} bytes, where {} is the most", tokenizer_.file(), text.size(), kLongestText);
  }
  if (const auto at = find_invalid_utf8(text)) {
    throw DataError("{}: the text to encode is not UTF-8 at byte {}", tokenizer_.file(), *at);
  }
  Output output{ids, std::nullopt};
  pieces_.clear();
  tokenizer_.original_tokens_.split(text, pieces_);
  for (const TextPiece& piece : pieces_) {
    if (!output.marked && piece.begin >= mark) output.marked = ids.size();
    if (piece.id >= 0) {
      ids.push_back(piece.id);
    } else {
      encode_plain(text.substr(piece.begin, piece.end - piece.begin), mark_within(mark, piece), output);
    }
  }
  return output.marked.value_or(ids.size());
}

void TokenEncoder::encode_plain(std::string_view text, std::optional<std::size_t> mark, Output& output) {
  if (!tokenizer_.spec_.nfc || !may_need_nfc(text)) return encode_normalized(text, mark, output);
  if (mark) mark = to_nfc(text.substr(0, *mark)).size();
  encode_normalized(to_nfc(text), mark, output);
}

void TokenEncoder::encode_normalized(std::string_view text, std::optional<std::size_t> mark, Output& output) {
  normalized_pieces_.clear();
  tokenizer_.normalized_tokens_.split(text, normalized_pieces_);
  for (const TextPiece& piece : normalized_pieces_) {
    const std::size_t first = output.ids.size();
    if (piece.id >= 0) {
      output.ids.push_back(piece.id);
    } else {
      encode_words(text.substr(piece.begin, piece.end - piece.begin), 0, output.ids);
    }
    if (!mark || output.marked || *mark >= piece.end) continue;
    std::size_t index = first;
    for (std::size_t at = piece.begin; at < *mark; ++index) {
      at += piece.id >= 0 ? piece.end - piece.begin : tokenizer_.token_bytes(output.ids[index]).size();
    }
    output.marked = index;
  }
}

void TokenEncoder::encode_words(std::string_view text, std::size_t level, std::vector<std::int32_t>& ids) {
  if (level == tokenizer_.patterns_.size()) {
    if (tokenizer_.byte_pairs_.encode(text, byte_pair_space_, ids)) return;
    throw DataError("{}: a byte of the text has no token in model.vocab", tokenizer_.file());
  }
  const SplitPattern& pattern = tokenizer_.patterns_[level];
  std::size_t done = 0;
  while (done < text.size()) {
    const auto match = pattern.find(text, done, match_space_);
    if (!match) break;
    if (done < match->begin) encode_words(text.substr(done, match->begin - done), level + 1, ids);
    encode_words(text.substr(match->begin, match->end - match->begin), level + 1, ids);
    done = match->end;
  }
  if (done < text.size()) encode_words(text.substr(done), level + 1, ids);
}

}  // namespace tadapt

// The learned part of tokenizer.json: normalizer, pre-tokenizer, vocabulary and merges.
#include "data/tokenizer_spec.h"

#include <fmt/format.h>

#include <string>
#include <utility>

#include "data/json.h"
#include "data/json_field.h"
#include "data/unicode.h"
#include "kernels/core/error.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

namespace tadapt {
namespace {

constexpr std::uint64_t kFileCap = 256 << 20;
constexpr std::string_view kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

[[noreturn]] void refuse(const JsonField& field, std::string_view what) {
  throw DataError("{}: {} is not supported", field.place(), what);
}

void read_normalizer(const JsonField& normalizer, TokenizerSpec& spec) {
  if (!normalizer.present()) return;
  const std::string& type = normalizer["type"].string();
  if (type == "NFC") {
    spec.nfc = true;
  } else if (type == "Sequence") {
    const JsonField parts = normalizer["normalizers"];
    for (std::size_t i = 0; i < parts.array().size(); ++i) read_normalizer(parts.at(i), spec);
  } else {
    refuse(normalizer["type"], in_quotes(type));
  }
}

void read_split(const JsonField& split, TokenizerSpec& spec) {
  if (split["behavior"].string() != "Isolated") refuse(split["behavior"], in_quotes(split["behavior"].string()));
  if (split["invert"].boolean_or(false)) refuse(split["invert"], "true");
  if (!split["pattern"]["Regex"].present()) refuse(split["pattern"], "a pattern other than Regex");
  spec.patterns.push_back(split["pattern"]["Regex"].string());
}

/// Appends to spec.patterns; true when this ends with the ByteLevel step that every supported tokenizer must have.
bool read_pre_tokenizer(const JsonField& step, TokenizerSpec& spec) {
  const std::string& type = step["type"].string();
  if (type == "Split") {
    read_split(step, spec);
    return false;
  }
  if (type == "ByteLevel") {
    if (step["add_prefix_space"].boolean()) refuse(step["add_prefix_space"], "true");
    if (step["use_regex"].boolean_or(true)) spec.patterns.emplace_back(kGpt2Pattern);
    return true;
  }
  if (type != "Sequence") refuse(step["type"], in_quotes(type));
  const JsonField parts = step["pretokenizers"];
  bool byte_level = false;
  for (std::size_t i = 0; i < parts.array().size(); ++i) {
    if (byte_level) refuse(parts.at(i), "a step after ByteLevel");
    byte_level = read_pre_tokenizer(parts.at(i), spec);
  }
  return byte_level;
}

void read_decoder(const JsonField& decoder) {
  if (!decoder.present()) return;
  const std::string& type = decoder["type"].string();
  if (type == "Sequence") {
    const JsonField parts = decoder["decoders"];
    for (std::size_t i = 0; i < parts.array().size(); ++i) read_decoder(parts.at(i));
  } else if (type != "ByteLevel") {
    refuse(decoder["type"], in_quotes(type));
  }
}

void refuse_model_options(const JsonField& model) {
  if (model["type"].string_or("BPE") != "BPE") refuse(model["type"], in_quotes(model["type"].string()));
  for (const std::string_view key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    if (!model[key].string_or("").empty()) refuse(model[key], in_quotes(model[key].string()));
  }
  if (model["byte_fallback"].boolean_or(false)) refuse(model["byte_fallback"], "true");
  if (model["dropout"].present() && model["dropout"].amount() != 0.0) refuse(model["dropout"], "a number other than 0");
}

void read_vocabulary(const JsonField& vocab, bool ignore_merges, TokenizerSpec& spec) {
  spec.byte_pairs.byte_ids.fill(-1);
  spec.ids.reserve(vocab.object().size());
  std::unordered_map<std::int32_t, const std::string*> tokens;
  for (const auto& [token, unused] : vocab.object()) {
    const std::int32_t id = vocab[token].integer(0, kTokenIdCap - 1);
    const auto [owner, is_new] = tokens.emplace(id, &token);
    if (!is_new) {
      throw DataError("{}: tokens {} and {} share id {}", vocab.place(), in_quotes(*owner->second), in_quotes(token),
                      id);
    }
    spec.ids.emplace(token, id);
    const auto bytes = byte_level_bytes(token);
    if (!bytes) continue;
    if (bytes->size() == 1) spec.byte_pairs.byte_ids[static_cast<unsigned char>(bytes->front())] = id;
    if (ignore_merges && !bytes->empty()) spec.byte_pairs.words.emplace(*bytes, id);
  }
}

/// A merge is `["a", "b"]` or, in older files, `"a b"`.
std::pair<std::string, std::string> read_merge(const JsonField& merge) {
  if (merge.is_array()) {
    if (merge.array().size() != 2)
      throw DataError("{}: expected two tokens, found {}", merge.place(), merge.array().size());
    return {merge.at(0).string(), merge.at(1).string()};
  }
  const std::string& both = merge.string();
  const std::size_t space = both.find(' ');
  if (space == std::string::npos || both.find(' ', space + 1) != std::string::npos) {
    throw DataError("{}: expected two tokens with one space between, found {}", merge.place(), in_quotes(both));
  }
  return {both.substr(0, space), both.substr(space + 1)};
}

void read_merges(const JsonField& merges, TokenizerSpec& spec) {
  for (std::size_t rank = 0; rank < merges.array().size(); ++rank) {
    const JsonField merge = merges.at(rank);
    if (!merge.is_array() && merge.string().starts_with("#version")) continue;
    const auto [left, right] = read_merge(merge);
    const auto id_of = [&](const std::string& token) {
      const auto found = spec.ids.find(token);
      if (found != spec.ids.end()) return found->second;
      throw DataError("{}: {} is not in the vocabulary", merge.place(), in_quotes(token));
    };
    spec.byte_pairs.merges.push_back({id_of(left), id_of(right), id_of(left + right)});
  }
}

std::uint64_t fingerprint_of(std::string_view tokenizer, std::string_view config) {
  return XXH3_64bits_withSeed(config.data(), config.size(), XXH3_64bits(tokenizer.data(), tokenizer.size()));
}

}  // namespace

void detail::read_tokenizer_model(const JsonField& tokenizer, TokenizerSpec& spec) {
  read_normalizer(tokenizer["normalizer"], spec);
  if (!read_pre_tokenizer(tokenizer["pre_tokenizer"], spec)) {
    refuse(tokenizer["pre_tokenizer"], "a pre-tokenizer that does not end with ByteLevel");
  }
  read_decoder(tokenizer["decoder"]);
  const JsonField model = tokenizer["model"];
  refuse_model_options(model);
  read_vocabulary(model["vocab"], model["ignore_merges"].boolean_or(false), spec);
  read_merges(model["merges"], spec);
}

TokenizerSpec read_tokenizer_spec(FileSystem& files, const std::filesystem::path& directory) {
  const std::filesystem::path tokenizer_file = directory / "tokenizer.json";
  const std::filesystem::path config_file = directory / "tokenizer_config.json";
  const std::string tokenizer_text = read_text(files, tokenizer_file, kFileCap);
  const std::string config_text = read_text(files, config_file, kFileCap);
  const nlohmann::json tokenizer = parse_json(tokenizer_text, tokenizer_file);
  const nlohmann::json config = parse_json(config_text, config_file);
  TokenizerSpec spec;
  spec.file = tokenizer_file.string();
  spec.fingerprint = fingerprint_of(tokenizer_text, config_text);
  const JsonField tokenizer_root(tokenizer, spec.file);
  detail::read_tokenizer_model(tokenizer_root, spec);
  detail::read_special_tokens(tokenizer_root, JsonField(config, config_file.string()), spec);
  return spec;
}

}  // namespace tadapt

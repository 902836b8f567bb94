// Added tokens, BOS and EOS, read from both files with the precedence of transformers 4.57.1.
#include <algorithm>
#include <array>
#include <map>
#include <optional>
#include <unordered_set>
#include <utility>

#include "data/json.h"
#include "data/json_field.h"
#include "data/tokenizer_spec.h"
#include "data/unicode.h"
#include "kernels/core/error.h"

namespace tadapt {
namespace {

/// Gives ids as `tokenizers` does: a token of the vocabulary keeps its id there, any other takes the next free one.
class AddedTokenTable {
 public:
  explicit AddedTokenTable(const std::unordered_map<std::string, std::int32_t>& vocabulary)
      : vocabulary_(vocabulary), next_id_(static_cast<std::int32_t>(vocabulary.size())) {
    for (const auto& [token, id] : vocabulary) taken_.insert(id);
  }

  bool has(const std::string& content) const { return tokens_.contains(content); }

  /// Adds `token`, or replaces its flags when it is known. A `declared` id must be the one it gets.
  void add(AddedToken token, std::optional<std::int32_t> declared, const std::string& place) {
    const auto known = tokens_.find(token.content);
    const auto in_vocabulary = vocabulary_.find(token.content);
    if (known != tokens_.end()) {
      token.id = known->second.id;
    } else if (in_vocabulary != vocabulary_.end()) {
      token.id = in_vocabulary->second;
    } else {
      token.id = next_id_;
      if (!taken_.insert(token.id).second || token.id >= kTokenIdCap) {
        throw DataError("{}: {} would get id {}, which is not free", place, in_quotes(token.content), token.id);
      }
    }
    if (declared && *declared != token.id) {
      throw DataError("{}: {} has id {}, but by its place it gets {}", place, in_quotes(token.content), *declared,
                      token.id);
    }
    next_id_ = std::max(next_id_, token.id + 1);
    std::string content = token.content;
    tokens_.insert_or_assign(std::move(content), std::move(token));
  }

  std::vector<AddedToken> tokens() const {
    std::vector<AddedToken> list;
    for (const auto& [content, token] : tokens_) list.push_back(token);
    return list;
  }

 private:
  const std::unordered_map<std::string, std::int32_t>& vocabulary_;
  std::map<std::string, AddedToken> tokens_;
  std::unordered_set<std::int32_t> taken_;
  std::int32_t next_id_;
};

AddedToken read_added_token(const JsonField& entry) {
  AddedToken token;
  token.content = entry["content"].string();
  token.strip_left = entry["lstrip"].boolean_or(false);
  token.strip_right = entry["rstrip"].boolean_or(false);
  token.normalized = entry["normalized"].boolean_or(!entry["special"].boolean_or(false));
  if (entry["single_word"].boolean_or(false))
    throw DataError("{}: true is not supported", entry["single_word"].place());
  if (token.content.empty()) throw DataError("{}: expected a token, found nothing", entry["content"].place());
  return token;
}

/// bos_token and the like: absent, a string, or an object with the flags of an added token.
std::optional<AddedToken> read_named_token(const JsonField& config, std::string_view key) {
  const JsonField field = config[key];
  if (!field.present()) return std::nullopt;
  if (field.is_object()) return read_added_token(field);
  AddedToken token;
  token.content = field.string();
  if (token.content.empty()) return std::nullopt;
  return token;
}

void add_from_config(const JsonField& config, AddedTokenTable& table) {
  const JsonField decoder = config["added_tokens_decoder"];
  std::map<std::int32_t, AddedToken> by_id;
  if (decoder.present()) {
    for (const auto& [key, entry] : decoder.object()) {
      const bool number = !key.empty() && key.size() < 9 && key.find_first_not_of("0123456789") == std::string::npos;
      if (!number) throw DataError("{}: expected token ids as keys, found {}", decoder.place(), in_quotes(key));
      by_id[std::stoi(key)] = read_added_token(decoder[key]);
    }
  }
  for (auto& [id, token] : by_id) table.add(std::move(token), id, decoder.place());
  for (const std::string_view key :
       {"bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"}) {
    auto token = read_named_token(config, key);
    if (token && !table.has(token->content)) table.add(std::move(*token), std::nullopt, config[key].place());
  }
  const JsonField more = config["additional_special_tokens"];
  for (std::size_t i = 0; more.present() && i < more.array().size(); ++i) {
    AddedToken token =
        more.at(i).is_object() ? read_added_token(more.at(i)) : AddedToken{.content = more.at(i).string()};
    if (!token.content.empty() && !table.has(token.content)) table.add(std::move(token), std::nullopt, more.place());
  }
}

struct Affixes {
  std::vector<std::string> before, after;
};

/// What a post_processor puts around a single text.
void read_post_processor(const JsonField& processor, Affixes& affixes) {
  if (!processor.present()) return;
  const std::string& type = processor["type"].string();
  if (type == "Sequence") {
    const JsonField parts = processor["processors"];
    for (std::size_t i = 0; i < parts.array().size(); ++i) read_post_processor(parts.at(i), affixes);
    return;
  }
  if (type == "ByteLevel") return;  // moves offsets only
  if (type != "TemplateProcessing")
    throw DataError("{}: {} is not supported", processor["type"].place(), in_quotes(type));
  const JsonField single = processor["single"];
  bool text_seen = false;
  for (std::size_t i = 0; i < single.array().size(); ++i) {
    const JsonField special = single.at(i)["SpecialToken"];
    if (special.present()) {
      (text_seen ? affixes.after : affixes.before).push_back(special["id"].string());
    } else if (std::exchange(text_seen, true) || single.at(i)["Sequence"]["id"].string() != "A") {
      throw DataError("{}: expected one Sequence, A", single.place());
    }
  }
  if (!text_seen) throw DataError("{}: expected one Sequence, A", single.place());
}

/// True when a template's tokens are none or `token` alone.
bool is_affix(const std::vector<std::string>& found, const std::string& token, const std::string& place) {
  if (found.empty()) return false;
  if (found.size() == 1 && found[0] == token) return true;
  throw DataError("{}: a template may put bos_token before and eos_token after the text, but has {}", place,
                  in_quotes(found[0]));
}

/// tokenizer_class names whose class replaces the post_processor by add_bos_token and add_eos_token, and what
/// add_bos_token is when it is not given.
constexpr std::array<std::pair<std::string_view, bool>, 3> kClassesThatReplace = {
    {{"LlamaTokenizer", true}, {"CohereTokenizer", true}, {"GPTNeoXTokenizer", false}}};

void read_affixes(const JsonField& tokenizer, const JsonField& config, TokenizerSpec& spec) {
  std::string name = config["tokenizer_class"].string_or("");
  if (name.ends_with("Fast")) name.resize(name.size() - 4);
  const auto* replaces = std::find_if(kClassesThatReplace.begin(), kClassesThatReplace.end(),
                                      [&](const auto& entry) { return entry.first == name; });
  if (replaces != kClassesThatReplace.end() || (name.empty() && config["add_bos_token"].present())) {
    const bool otherwise = replaces != kClassesThatReplace.end() && replaces->second;
    spec.adds_bos = config["add_bos_token"].boolean_or(otherwise);
    spec.adds_eos = config["add_eos_token"].boolean_or(false);
  } else {
    const JsonField processor = tokenizer["post_processor"];
    Affixes affixes;
    read_post_processor(processor, affixes);
    spec.adds_bos = is_affix(affixes.before, spec.bos, processor.place());
    spec.adds_eos = is_affix(affixes.after, spec.eos, processor.place());
  }
  if (spec.adds_bos && spec.bos.empty()) {
    throw DataError("{}: expected a token, as texts are to begin with it", config["bos_token"].place());
  }
  if (spec.adds_eos && spec.eos.empty()) {
    throw DataError("{}: expected a token, as texts are to end with it", config["eos_token"].place());
  }
}

}  // namespace

void detail::read_special_tokens(const JsonField& tokenizer, const JsonField& config, TokenizerSpec& spec) {
  AddedTokenTable table(spec.ids);
  const JsonField added = tokenizer["added_tokens"];
  for (std::size_t i = 0; added.present() && i < added.array().size(); ++i) {
    const std::int32_t id = added.at(i)["id"].integer(0, kTokenIdCap - 1);
    table.add(read_added_token(added.at(i)), id, added.at(i).place());
  }
  if (config["split_special_tokens"].boolean_or(false)) {
    throw DataError("{}: true is not supported", config["split_special_tokens"].place());
  }
  add_from_config(config, table);
  spec.added = table.tokens();
  if (const auto bos = read_named_token(config, "bos_token")) spec.bos = bos->content;
  if (const auto eos = read_named_token(config, "eos_token")) spec.eos = eos->content;
  read_affixes(tokenizer, config, spec);
}

}  // namespace tadapt

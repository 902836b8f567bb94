// Tokenizer against ids of Hugging Face tokenizers and transformers (tests/golden/make_tokenizer_golden.py).
#include "data/tokenizer.h"

#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <random>
#include <sstream>

#include "data/unicode.h"
#include "tests/support/errors.h"
#include "tests/support/temporary_directory.h"

namespace tadapt {
namespace {

using nlohmann::json;
using ::testing::AllOf;
using ::testing::HasSubstr;

const std::filesystem::path kSource = TADAPT_SOURCE_DIR;
const std::filesystem::path kGolden = kSource / "tests/golden/tokenizer";
const std::filesystem::path kToy = kGolden / "toy";

Tokenizer load(const std::filesystem::path& directory) {
  RealFileSystem files;
  return Tokenizer::load(files, directory);
}

json read_json(const std::filesystem::path& path) { return json::parse(std::ifstream(path)); }

std::vector<json> golden_lines() {
  std::ifstream file(kGolden / "lines.jsonl");
  std::vector<json> lines;
  for (std::string line; std::getline(file, line);) lines.push_back(json::parse(line));
  return lines;
}

/// A directory with a small tokenizer whose two files a test may change.
class TokenizerFiles : public ::testing::Test {
 protected:
  TokenizerFiles() {
    json vocab;
    for (char c = 'a'; c <= 'h'; ++c) vocab[std::string(1, c)] = vocab.size();
    vocab["Ġ"] = 8;
    vocab["ab"] = 9;
    vocab["abc"] = 10;
    vocab["Ġab"] = 11;
    tokenizer_ = {
        {"version", "1.0"},
        {"added_tokens", json::array({{{"id", 12}, {"content", "<s>"}, {"special", true}}})},
        {"normalizer", {{"type", "NFC"}}},
        {"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", true}}},
        {"decoder", {{"type", "ByteLevel"}}},
        {"model",
         {{"type", "BPE"},
          {"vocab", vocab},
          {"merges", json::array({json::array({"a", "b"}), json::array({"ab", "c"}), json::array({"Ġ", "ab"})})}}}};
    config_ = {{"tokenizer_class", "LlamaTokenizerFast"}, {"add_bos_token", true}, {"bos_token", "<s>"}};
  }

  Tokenizer loaded() {
    write("tokenizer.json", tokenizer_.dump());
    write("tokenizer_config.json", config_.dump());
    return load(directory_.path());
  }
  void write(const std::string& name, const std::string& text) { std::ofstream(directory_ / name) << text; }

  testing::TemporaryDirectory directory_;
  json tokenizer_, config_;
};

class GoldenLines : public ::testing::TestWithParam<std::string> {};

TEST_P(GoldenLines, IdsAreThoseOfTokenizers) {
  testing::TemporaryDirectory directory;
  std::filesystem::path where = GetParam() == "toy" ? kToy : kGolden / "mixed";
  if (GetParam() == "gpt2") {  // the same edit as in the script that made the ids
    json tokenizer = read_json(where / "tokenizer.json");
    tokenizer["normalizer"] = nullptr;
    tokenizer["pre_tokenizer"] = {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", true}};
    tokenizer["model"]["ignore_merges"] = true;
    std::ofstream(directory / "tokenizer.json") << tokenizer.dump();
    std::filesystem::copy(where / "tokenizer_config.json", directory / "tokenizer_config.json");
    where = directory.path();
  }
  const Tokenizer tokenizer = load(where);
  TokenEncoder encoder(tokenizer);
  std::size_t compared = 0;
  for (const json& line : golden_lines()) {
    if (!line.contains(GetParam())) continue;
    std::vector<std::int32_t> ids;
    encoder.encode(line["text"].get<std::string>(), ids);
    EXPECT_EQ(ids, line[GetParam()].get<std::vector<std::int32_t>>()) << line["text"];
    ++compared;
  }
  EXPECT_GE(compared, GetParam() == "gpt2" ? 500u : 2000u);
}

INSTANTIATE_TEST_SUITE_P(All, GoldenLines, ::testing::Values("toy", "mixed", "gpt2"),
                         [](const auto& instance) { return instance.param; });

TEST(Tokenizer, DecodingGivesTheNormalizedText) {
  for (const auto& directory : {kToy, kSource / "data/toy/target"}) {
    const Tokenizer tokenizer = load(directory);
    for (const json& line : golden_lines()) {
      const std::string text = line["text"];
      EXPECT_EQ(tokenizer.decode(tokenizer.encode(text)), to_nfc(text)) << line["text"];
    }
  }
}

TEST(Tokenizer, DecodesPartsOfCharactersAsTheirBytes) {
  const Tokenizer tokenizer = load(kToy);
  const std::string text = "\xF0\x9F\x98\x80";  // four tokens in a vocabulary without emoji
  const std::vector<std::int32_t> ids = tokenizer.encode(text);
  ASSERT_EQ(ids.size(), 4u);
  for (std::size_t i = 0; i < 4; ++i) EXPECT_EQ(tokenizer.token_bytes(ids[i]), text.substr(i, 1));
  EXPECT_EQ(tokenizer.decode(std::span(ids).first(3)), text.substr(0, 3));
}

TEST(Tokenizer, AnIdWithoutATokenHasNoBytes) {
  const Tokenizer tokenizer = load(kToy);
  EXPECT_EQ(tokenizer.decode(std::vector<std::int32_t>{-1, tokenizer.vocabulary_size(), 1 << 30}), "");
}

TEST(Tokenizer, AddsBosWhereTransformersDoes) {
  for (const json& entry : read_json(kGolden / "texts.json")) {
    const Tokenizer tokenizer = load(entry["tokenizer"] == "toy" ? kToy : kGolden / "mixed");
    std::vector<std::int32_t> ids = tokenizer.encode(entry["text"].get<std::string>());
    ASSERT_TRUE(tokenizer.adds_bos() && tokenizer.bos_id());
    ids.insert(ids.begin(), *tokenizer.bos_id());
    EXPECT_EQ(ids, entry["ids"].get<std::vector<std::int32_t>>());
    EXPECT_FALSE(tokenizer.adds_eos());
  }
}

TEST(Tokenizer, KnowsItsSpecialTokens) {
  const Tokenizer tokenizer = load(kToy);
  EXPECT_EQ(tokenizer.bos_id(), tokenizer.id_of("<｜begin▁of▁sentence｜>"));
  EXPECT_EQ(tokenizer.eos_id(), tokenizer.id_of("<｜end▁of▁sentence｜>"));
  EXPECT_TRUE(tokenizer.id_of("<think>").has_value());
  EXPECT_FALSE(tokenizer.id_of("not a token").has_value());
  EXPECT_EQ(tokenizer.encode("<｜User｜>"), std::vector<std::int32_t>{*tokenizer.id_of("<｜User｜>")});
}

TEST(Tokenizer, FingerprintDependsOnBothFiles) {
  const Tokenizer toy = load(kToy), mixed = load(kGolden / "mixed");
  EXPECT_EQ(toy.fingerprint(), load(kToy).fingerprint());
  EXPECT_NE(toy.fingerprint(), mixed.fingerprint());
}

TEST(Tokenizer, MarksTheFirstTokenAtOrAfterAByte) {
  const Tokenizer tokenizer = load(kGolden / "mixed");
  const std::string text = "Who are you? <|im_start|>x\ny a\n\n\nb<both>> 4567 the end";
  const std::vector<std::int32_t> whole = tokenizer.encode(text);
  for (std::size_t mark = 0; mark <= text.size(); ++mark) {
    std::vector<std::int32_t> ids = {5};  // encode appends
    const std::size_t index = TokenEncoder(tokenizer).encode(text, mark, ids);
    std::size_t at = 0, expected = 0;
    while (at < mark) at += tokenizer.token_bytes(whole[expected++]).size();
    EXPECT_EQ(index, expected + 1) << mark;
    EXPECT_EQ(std::vector<std::int32_t>(ids.begin() + 1, ids.end()), whole);
  }
}

TEST(Tokenizer, MarksKnowWhatStrippingSwallowed) {
  const Tokenizer tokenizer = load(kGolden / "mixed");
  const std::string text = "Who  <both>  you";
  std::vector<std::int32_t> ids;
  const std::vector<std::int32_t> who = tokenizer.encode("Who");
  EXPECT_EQ(TokenEncoder(tokenizer).encode(text, 3, ids), who.size());           // where the white space begins
  EXPECT_EQ(TokenEncoder(tokenizer).encode(text, 5, ids = {}), who.size() + 1);  // inside what <both> covers
  EXPECT_EQ(TokenEncoder(tokenizer).encode(text, 13, ids = {}), who.size() + 1);
}

TEST(Tokenizer, MarksSurviveNormalization) {
  const Tokenizer tokenizer = load(kToy);
  const std::string before = "<think>e\u0301\u0323 o\u0308", after = "n\u0303 end";
  std::vector<std::int32_t> ids;
  const std::size_t index = TokenEncoder(tokenizer).encode(before + after, before.size(), ids);
  EXPECT_EQ(tokenizer.decode(std::span(ids).first(index)), to_nfc(before));
}

TEST(Tokenizer, RefusesInvalidUtf8) {
  const Tokenizer tokenizer = load(kToy);
  EXPECT_ERROR(tokenizer.encode("ab\xff"), DataError, HasSubstr("not UTF-8 at byte 2"));
  EXPECT_ERROR(tokenizer.encode("\xed\xa0\x80"), DataError, HasSubstr("byte 0"));  // a surrogate
  EXPECT_ERROR(tokenizer.encode("a\xc0\x80"), DataError, HasSubstr("byte 1"));     // an overlong NUL
  EXPECT_ERROR(tokenizer.encode("abc\xe2\x82"), DataError, HasSubstr("byte 3"));   // cut off
}

TEST(Tokenizer, LongWordsAreMergedInTime) {
  const Tokenizer tokenizer = load(kToy);
  std::mt19937 random(7);
  std::string word(1 << 20, 'a');
  for (char& c : word) c = "theanwrsoil"[random() % 11];
  for (const std::string& text : {word, std::string(1 << 20, 'a'), std::string(1 << 20, ' ') + "x",
                                  std::string(1 << 20, '<'), std::string(1 << 20, '\n')}) {
    EXPECT_EQ(tokenizer.decode(tokenizer.encode(text)), text);  // a quadratic merge would outlast the test's time limit
  }
}

TEST_F(TokenizerFiles, EncodesByRank) {
  const Tokenizer tokenizer = loaded();
  EXPECT_EQ(tokenizer.encode("abc ab<s>h"), (std::vector<std::int32_t>{10, 11, 12, 7}));
  EXPECT_EQ(tokenizer.vocabulary_size(), 13);
  EXPECT_TRUE(tokenizer.adds_bos());
}

TEST_F(TokenizerFiles, AByteWithoutATokenIsAnError) {
  EXPECT_ERROR(loaded().encode("z"), DataError, HasSubstr("no token"));
}

TEST_F(TokenizerFiles, BosDependsOnTheClass) {
  config_.erase("add_bos_token");
  EXPECT_TRUE(loaded().adds_bos());
  config_["add_bos_token"] = false;
  EXPECT_FALSE(loaded().adds_bos());
  config_ = {{"tokenizer_class", "Qwen2Tokenizer"}, {"add_bos_token", true}, {"bos_token", "<s>"}};
  EXPECT_FALSE(loaded().adds_bos());  // transformers does not look at it there
  config_.erase("tokenizer_class");
  EXPECT_TRUE(loaded().adds_bos());
  config_["bos_token"] = nullptr;
  EXPECT_ERROR(loaded(), DataError, AllOf(HasSubstr("tokenizer_config.json: bos_token"), HasSubstr("begin")));
}

TEST_F(TokenizerFiles, ATemplatePutsBosAndEosAround) {
  config_ = {{"tokenizer_class", "PreTrainedTokenizerFast"}, {"bos_token", "<s>"}, {"eos_token", "a"}};
  const json text = {{"Sequence", {{"id", "A"}}}}, bos = {{"SpecialToken", {{"id", "<s>"}}}},
             eos = {{"SpecialToken", {{"id", "a"}}}};
  tokenizer_["post_processor"] = {{"type", "TemplateProcessing"}, {"single", {bos, text, eos}}};
  EXPECT_TRUE(loaded().adds_bos());
  EXPECT_TRUE(loaded().adds_eos());
  EXPECT_EQ(loaded().encode("ab a"), (std::vector<std::int32_t>{0, 1, 8, 0}));  // eos_token is looked for in texts
  tokenizer_["post_processor"]["single"] = {eos, text};
  EXPECT_ERROR(loaded(), DataError, HasSubstr("tokenizer.json: post_processor"));
}

TEST_F(TokenizerFiles, ConfigOverridesFlagsAndAddsTokens) {
  config_["added_tokens_decoder"]["12"] = {{"content", "<s>"}, {"rstrip", true}, {"special", true}};
  config_["additional_special_tokens"] = {"<t>"};
  const Tokenizer tokenizer = loaded();
  EXPECT_EQ(tokenizer.encode("<s>  a<t>"), (std::vector<std::int32_t>{12, 0, 13}));
  config_["added_tokens_decoder"]["12"]["content"] = "<u>";
  EXPECT_ERROR(loaded(), DataError, AllOf(HasSubstr("added_tokens_decoder"), HasSubstr("id 12"), HasSubstr("13")));
}

struct Fault {
  std::string pointer;  // where in tokenizer.json ("" for the config's)
  json value;
  std::string message;
};

class RefusedTokenizers : public TokenizerFiles, public ::testing::WithParamInterface<Fault> {};

TEST_P(RefusedTokenizers, NamesFileAndKey) {
  tokenizer_[json::json_pointer(GetParam().pointer)] = GetParam().value;
  EXPECT_ERROR(loaded(), DataError, AllOf(HasSubstr("tokenizer.json"), HasSubstr(GetParam().message)));
}

Fault split(const std::string& pattern, const std::string& message) {
  const json step = {{"type", "Split"}, {"pattern", {{"Regex", pattern}}}, {"behavior", "Isolated"}};
  const json bytes = {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}};
  return {"/pre_tokenizer", {{"type", "Sequence"}, {"pretokenizers", {step, bytes}}}, message};
}

INSTANTIATE_TEST_SUITE_P(
    Unsupported, RefusedTokenizers,
    ::testing::Values(
        Fault{"/normalizer/type", "NFKC", "normalizer.type: \"NFKC\" is not supported"},
        Fault{"/pre_tokenizer/type", "Metaspace", "pre_tokenizer.type: \"Metaspace\""},
        Fault{"/pre_tokenizer/add_prefix_space", true, "add_prefix_space: true"},
        Fault{"/pre_tokenizer", nullptr, "pre_tokenizer"}, Fault{"/decoder/type", "WordPiece", "decoder.type"},
        Fault{"/model/type", "Unigram", "model.type: \"Unigram\""},
        Fault{"/model/byte_fallback", true, "model.byte_fallback"}, Fault{"/model/dropout", 0.1, "model.dropout"},
        Fault{"/model/continuing_subword_prefix", "##", "continuing_subword_prefix: \"##\""},
        Fault{"/model/end_of_word_suffix", "</w>", "end_of_word_suffix"},
        Fault{"/added_tokens/0/single_word", true, "added_tokens[0].single_word"}, split(R"(\w+)", R"(\\w)"),
        split(R"([a[bc]]+)", "[b"), split(R"(^a)", "^"), split(R"(\p{Han}+)", "Han"), split(R"(a{2}+)", "{2}+"),
        split(R"((?<x>a))", "(?<"), split("a*", "empty text"), split("(a", "pattern")));

INSTANTIATE_TEST_SUITE_P(
    Hostile, RefusedTokenizers,
    ::testing::Values(
        Fault{"/model", 3, "model: expected an object, found 3"}, Fault{"/model/vocab", nullptr, "model.vocab"},
        Fault{"/model/vocab/a", -1, "model.vocab.a: expected an integer from 0"},
        Fault{"/model/vocab/a", 1e3, "model.vocab.a"}, Fault{"/model/vocab/a", "1", "model.vocab.a"},
        Fault{"/model/vocab/a", 4294967296, "model.vocab.a"},
        Fault{"/model/vocab/a", 18446744073709551615u, "model.vocab.a"}, Fault{"/model/vocab/a", 16777216, "vocab.a"},
        Fault{"/model/vocab/a", 1, "share id 1"}, Fault{"/model/merges", json::object(), "model.merges"},
        Fault{"/model/merges/1", "a", "model.merges[1]: expected two tokens"},
        Fault{"/model/merges/1", "a b c", "model.merges[1]"}, Fault{"/model/merges/1", {"a"}, "model.merges[1]"},
        Fault{"/model/merges/1", {"a", 3}, "model.merges[1][1]: expected a string"},
        Fault{"/model/merges/1", {"a", "h"}, "model.merges[1]: \"ah\" is not in the vocabulary"},
        Fault{"/model/merges/1", {"\n", "h"}, "model.merges[1]: \"\\n\""},
        Fault{"/added_tokens/0/id", 40, "\"<s>\" has id 40, but by its place it gets 12"},
        Fault{"/added_tokens/0/content", "", "added_tokens[0].content"}, Fault{"/added_tokens/0/content", "a", "id 12"},
        Fault{"/added_tokens", "x", "added_tokens: expected an array"},
        Fault{"/model/vocab/abc", 12, "id 12, which is not free"}));

TEST_F(TokenizerFiles, BrokenFilesAreNamed) {
  loaded();
  const std::string whole = tokenizer_.dump();
  for (std::size_t length = 0; length < whole.size(); length += 13) {
    write("tokenizer.json", whole.substr(0, length));
    EXPECT_ERROR(load(directory_.path()), DataError, HasSubstr("tokenizer.json"));
  }
  write("tokenizer.json", whole);
  write("tokenizer_config.json", "[]");
  EXPECT_ERROR(load(directory_.path()), DataError, HasSubstr("tokenizer_config.json: expected an object"));
  std::filesystem::remove(directory_ / "tokenizer_config.json");
  EXPECT_ERROR(load(directory_.path()), MissingInputError, HasSubstr("tokenizer_config.json"));
}

}  // namespace
}  // namespace tadapt

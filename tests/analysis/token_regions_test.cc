// Regions of conversations in each chat format, against regions written out by hand.
#include "runtime/analysis/token_regions.h"

#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

#include "runtime/analysis/token_text.h"
#include "tests/support/temporary_directory.h"

namespace tadapt {
namespace {
using ::testing::ElementsAre;

/// A tokenizer whose tokens are bytes, and these added ones.
Tokenizer byte_tokenizer(const testing::TemporaryDirectory& folder, const std::vector<std::string>& added) {
  RealFileSystem files;
  const std::filesystem::path toy = std::filesystem::path(TADAPT_SOURCE_DIR) / "data/toy/target";
  nlohmann::json tokenizer = nlohmann::json::parse(read_text(files, toy / "tokenizer.json"));
  nlohmann::json vocabulary = nlohmann::json::object();
  for (const auto& [token, id] : tokenizer["model"]["vocab"].items())
    if (id < 256) vocabulary[token] = id;
  tokenizer["model"]["vocab"] = vocabulary;
  tokenizer["model"]["merges"] = nlohmann::json::array();
  std::int64_t id = 256;
  nlohmann::json tokens = nlohmann::json::array();
  for (const std::string& content : added)
    tokens.push_back({{"id", id++},
                      {"content", content},
                      {"single_word", false},
                      {"lstrip", false},
                      {"rstrip", false},
                      {"normalized", false},
                      {"special", true}});
  tokenizer["added_tokens"] = tokens;
  write_atomically(files, folder / "tokenizer.json", tokenizer.dump());
  write_atomically(files, folder / "tokenizer_config.json", read_text(files, toy / "tokenizer_config.json"));
  return Tokenizer::load(files, folder.path());
}

/// Runs of one region: "bos:1 question:2 …".
std::string runs(const SequenceRegions& regions) {
  std::string text;
  for (std::size_t i = 0; i < regions.of_token.size();) {
    std::size_t end = i;
    while (end < regions.of_token.size() && regions.of_token[end] == regions.of_token[i]) ++end;
    text +=
        fmt::format("{}{}:{}", i == 0 ? "" : " ", kRegionNames[static_cast<std::size_t>(regions.of_token[i])], end - i);
    i = end;
  }
  return text;
}

class RegionsTest : public ::testing::Test {
 protected:
  std::optional<SequenceRegions> regions(ChatFormat format, const Tokenizer& tokenizer,
                                         const std::string& conversations, std::int64_t max_tokens = 1000) {
    RealFileSystem files;
    write_atomically(files, folder_ / "corpus.jsonl", "{\"conversations\":[" + conversations + "]}\n");
    const TokenDataset corpus =
        TokenDataset::build(files, folder_ / "corpus.jsonl", tokenizer, {.format = format, .max_tokens = max_tokens});
    return RegionFinder(format, tokenizer).regions(corpus.sequence(0));
  }
  static std::string turn(const std::string& from, const std::string& value) {
    return nlohmann::json{{"from", from}, {"value", value}}.dump();
  }
  testing::TemporaryDirectory folder_;
  const std::string question_ = turn("human", "Hm?"), response_ = turn("gpt", "<think> 12345\n</think>\nOk");
  const std::vector<std::string> deepseek_ = {"<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>",
                                              "<｜begin▁of▁sentence｜>"};
};

TEST_F(RegionsTest, DeepseekHasAllOfThem) {
  std::vector<std::string> added = deepseek_;
  added.insert(added.end(), {"<think>", "</think>"});
  const Tokenizer tokenizer = byte_tokenizer(folder_, added);
  const auto found = regions(ChatFormat::kDeepseek, tokenizer, question_ + "," + response_);
  ASSERT_TRUE(found);
  EXPECT_EQ(runs(*found),
            "bos:1 user_marker:1 question:3 assistant_marker:1 think_start:1 thinking:7 think_end:1 answer:3");
  EXPECT_EQ(found->think_begin, 7);
  EXPECT_EQ(found->think_end, 14);
}

TEST_F(RegionsTest, MarkersMayBeSeveralTokens) {
  const Tokenizer tokenizer = byte_tokenizer(folder_, deepseek_);
  const auto found = regions(ChatFormat::kDeepseek, tokenizer, question_ + "," + response_);
  ASSERT_TRUE(found);
  EXPECT_EQ(runs(*found),
            "bos:1 user_marker:1 question:3 assistant_marker:1 think_start:7 thinking:7 think_end:8 answer:3");
}

TEST_F(RegionsTest, EarlierTurnsAreTheQuestion) {
  const Tokenizer tokenizer = byte_tokenizer(folder_, deepseek_);
  const std::string turns = turn("human", "a") + "," + turn("gpt", "<think>b</think>c") + "," + question_;
  const auto found = regions(ChatFormat::kDeepseek, tokenizer, turns + "," + response_);
  ASSERT_TRUE(found);
  EXPECT_EQ(runs(*found),
            "bos:1 user_marker:1 question:1 assistant_marker:1 question:2 user_marker:1 question:3 assistant_marker:1 "
            "think_start:7 thinking:7 think_end:8 answer:3");
}

TEST_F(RegionsTest, QwenHasNoBosAndMarkersOfSeveralTokens) {
  const Tokenizer tokenizer = byte_tokenizer(folder_, {"<|im_start|>", "<|im_end|>"});
  const auto found = regions(ChatFormat::kQwen, tokenizer, turn("system", "S") + "," + question_ + "," + response_);
  ASSERT_TRUE(found);
  EXPECT_EQ(
      runs(*found),
      "user_marker:8 question:3 user_marker:6 question:5 assistant_marker:11 think_start:7 thinking:7 think_end:8 "
      "answer:5");
}

TEST_F(RegionsTest, PlainHasNoMarkers) {
  const Tokenizer tokenizer = byte_tokenizer(folder_, deepseek_);
  const auto found = regions(ChatFormat::kPlain, tokenizer, question_ + "," + response_);
  ASSERT_TRUE(found);
  EXPECT_THAT(runs(*found), ::testing::HasSubstr("question:5 think_start:7 thinking:7 think_end:8 answer:3"));
}

TEST_F(RegionsTest, WithoutThinkingToTheEndThereAreNone) {
  const Tokenizer tokenizer = byte_tokenizer(folder_, deepseek_);
  const auto of = [&](const std::string& response, std::int64_t max_tokens = 1000) {
    return regions(ChatFormat::kDeepseek, tokenizer, question_ + "," + turn("gpt", response), max_tokens).has_value();
  };
  EXPECT_FALSE(of("Ok"));
  EXPECT_FALSE(of("<think>Ok"));
  EXPECT_FALSE(of("</think><think>"));
  EXPECT_TRUE(of("<think></think>"));
  EXPECT_FALSE(of("<think></think>", 12)) << "cut off inside";
}

TEST(ShownText, PiecesOfCharactersAndControlCharactersAreEscaped) {
  EXPECT_EQ(shown_text("Größe ✓\n\t"), "Größe ✓\n\t");
  EXPECT_EQ(shown_text("\xe2\x9c"), "\\xe2\\x9c");
  EXPECT_EQ(shown_text("a\xff"
                       "b\x01\x7f"),
            "a\\xff"
            "b\\x01\\x7f");
  EXPECT_EQ(shown_text(""), "");
}

}  // namespace
}  // namespace tadapt

// Chat formats against transformers' apply_chat_template, and their rules for several turns.
#include "data/chat_format.h"

#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "data/tokenizer.h"
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
const std::string kBos = "<｜begin▁of▁sentence｜>";
const std::string kEos = "<｜end▁of▁sentence｜>";

Tokenizer load(const std::filesystem::path& directory) {
  RealFileSystem files;
  return Tokenizer::load(files, directory);
}

std::vector<Turn> conversation(const std::vector<std::string>& texts) {
  std::vector<Turn> turns;
  for (const std::string& text : texts) turns.push_back({turns.size() % 2 == 0 ? Role::kUser : Role::kAssistant, text});
  return turns;
}

TEST(ChatFormat, IdsAreThoseOfTransformers) {
  const json chats = json::parse(std::ifstream(kGolden / "chats.json"));
  ASSERT_GE(chats.size(), 10u);
  for (const json& chat : chats) {
    const Tokenizer tokenizer = load(chat["tokenizer"] == "toy" ? kToy : kGolden / "mixed");
    const ChatRenderer renderer(chat["format"] == "qwen" ? ChatFormat::kQwen : ChatFormat::kDeepseek, tokenizer);
    std::vector<Turn> turns;
    for (const json& turn : chat["turns"]) {
      const Role role = turn[0] == "system" ? Role::kSystem : turn[0] == "user" ? Role::kUser : Role::kAssistant;
      turns.push_back({role, turn[1]});
    }
    EXPECT_EQ(tokenizer.encode(renderer.render(turns).text), chat["ids"].get<std::vector<std::int32_t>>()) << chat;
    turns.pop_back();
    EXPECT_EQ(tokenizer.encode(renderer.prompt(turns)), chat["prompt_ids"].get<std::vector<std::int32_t>>()) << chat;
  }
}

TEST(ChatFormat, DeepseekSingleTurn) {
  const Tokenizer tokenizer = load(kToy);
  const ChatRenderer renderer(ChatFormat::kDeepseek, tokenizer);
  const ChatText chat = renderer.render(conversation({"1+1?", "<think> two </think> 2"}));
  EXPECT_EQ(chat.text, kBos + "<｜User｜>1+1?<｜Assistant｜><think>\ntwo </think> 2");
  EXPECT_EQ(chat.text.substr(chat.response_begin), "<think>\ntwo </think> 2");
  EXPECT_EQ(renderer.render(conversation({"q", "<think>x"})).text, kBos + "<｜User｜>q<｜Assistant｜><think>x");
  EXPECT_EQ(renderer.prompt(conversation({"q"})), kBos + "<｜User｜>q<｜Assistant｜><think>\n");
}

TEST(ChatFormat, DeepseekForgetsEarlierThoughts) {
  const Tokenizer tokenizer = load(kToy);
  const ChatText chat = ChatRenderer(ChatFormat::kDeepseek, tokenizer)
                            .render(conversation({"a", "<think> x</think>b", "c", "<think> y</think>d"}));
  EXPECT_EQ(chat.text, kBos + "<｜User｜>a<｜Assistant｜>b" + kEos + "<｜User｜>c<｜Assistant｜><think>\ny</think>d");
  EXPECT_EQ(chat.text.substr(chat.response_begin), "<think>\ny</think>d");
}

TEST(ChatFormat, QwenPutsInNoSystemTurn) {
  const Tokenizer tokenizer = load(kGolden / "mixed");
  const ChatRenderer renderer(ChatFormat::kQwen, tokenizer);
  const ChatText chat = renderer.render(conversation({"q", "r"}));
  EXPECT_EQ(chat.text, "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\nr<|im_end|>\n");
  EXPECT_EQ(chat.text.substr(chat.response_begin), "r<|im_end|>\n");
}

TEST(ChatFormat, PlainHasOneBos) {
  const Tokenizer tokenizer = load(kToy);
  const ChatRenderer renderer(ChatFormat::kPlain, tokenizer);
  EXPECT_EQ(renderer.render(conversation({"q", "r"})).text, kBos + "q\n\nr");
  EXPECT_EQ(renderer.render(conversation({kBos + "q", "r"})).text, kBos + "q\n\nr");
  EXPECT_EQ(renderer.prompt(conversation({"q"})), kBos + "q\n\n");
  EXPECT_EQ(renderer.render(conversation({"q", "r"})).response_begin, (kBos + "q\n\n").size());
}

TEST(ChatFormat, PlainEndsWithEosWhereTheTokenizerAddsIt) {
  testing::TemporaryDirectory directory;
  std::filesystem::copy(kToy / "tokenizer.json", directory / "tokenizer.json");
  json config = json::parse(std::ifstream(kToy / "tokenizer_config.json"));
  config["add_bos_token"] = false;
  config["add_eos_token"] = true;
  std::ofstream(directory / "tokenizer_config.json") << config;
  const Tokenizer tokenizer = load(directory.path());
  EXPECT_EQ(ChatRenderer(ChatFormat::kPlain, tokenizer).render(conversation({"q", "r"})).text, "q\n\nr" + kEos);
  EXPECT_EQ(ChatRenderer(ChatFormat::kDeepseek, tokenizer).render(conversation({"q", "r"})).text,
            kBos + "<｜User｜>q<｜Assistant｜>r");
}

TEST(ChatFormat, MissingMarkersAreNamed) {
  const Tokenizer toy = load(kToy), mixed = load(kGolden / "mixed");
  EXPECT_ERROR(ChatRenderer(ChatFormat::kQwen, toy), ConfigError, AllOf(HasSubstr("qwen"), HasSubstr("<|im_start|>")));
  EXPECT_ERROR(ChatRenderer(ChatFormat::kDeepseek, mixed), ConfigError,
               AllOf(HasSubstr("deepseek"), HasSubstr("<｜User｜>"), HasSubstr("tokenizer.json")));
}

}  // namespace
}  // namespace tadapt

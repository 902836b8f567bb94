// Prompts from files: what is dropped, what is put before them, what is refused.
#include "runtime/analysis/attribution_prompts.h"

#include <gmock/gmock.h>

#include "tests/support/errors.h"
#include "tests/support/temporary_directory.h"

namespace tadapt {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

class AttributionPromptsTest : public ::testing::Test {
 protected:
  void put(const std::string& name, const std::string& text) { write_atomically(files_, directory_ / name, text); }
  std::vector<AttributionPrompt> read(const std::string& name = "") {
    return read_attribution_prompts(files_, directory_ / name, ChatFormat::kDeepseek, tokenizer_);
  }
  RealFileSystem files_;
  testing::TemporaryDirectory directory_;
  const Tokenizer tokenizer_ = Tokenizer::load(files_, std::filesystem::path(TADAPT_SOURCE_DIR) / "data/toy/target");
};

TEST_F(AttributionPromptsTest, TheLastTokenOfATextIsDropped) {
  const std::string text = tokenizer_.bos() + "<｜User｜>3 + 4<｜Assistant｜><think>\nWait";
  put("b.txt", text);
  put("a b.txt", text + "\n");
  put("notes.md", "not a prompt");
  const std::vector<AttributionPrompt> prompts = read();
  ASSERT_EQ(prompts.size(), 2u);
  EXPECT_EQ(prompts[0].slug, "a-b");
  EXPECT_EQ(prompts[1].slug, "b");
  EXPECT_EQ(prompts[0].ids, prompts[1].ids) << "a new line at the end is no part of it";
  std::vector<std::int32_t> ids = tokenizer_.encode(text);
  ids.pop_back();
  EXPECT_EQ(prompts[1].ids, ids);
  EXPECT_EQ(prompts[1].text, tokenizer_.decode(ids));
}

TEST_F(AttributionPromptsTest, BosIsPutBeforeATextThatLacksIt) {
  put("with.txt", tokenizer_.bos() + "3 + 4 = 7");
  put("without.txt", "3 + 4 = 7");
  const std::vector<AttributionPrompt> prompts = read();
  EXPECT_EQ(prompts[0].ids.size(), prompts[1].ids.size() + (tokenizer_.adds_bos() ? 0 : 1));
}

TEST_F(AttributionPromptsTest, LinesAreChatPromptsAndKeepTheirLastToken) {
  put("questions.jsonl", "{\"question\": \"3 + 4\"}\n{\"prompt\": \"5 + 6\"}\n");
  const std::vector<AttributionPrompt> prompts = read("questions.jsonl");
  ASSERT_EQ(prompts.size(), 2u);
  EXPECT_EQ(prompts[0].slug, "questions-0001");
  EXPECT_EQ(prompts[1].slug, "questions-0002");
  EXPECT_TRUE(prompts[0].text.ends_with("<think>\n")) << prompts[0].text;
}

TEST_F(AttributionPromptsTest, RefusalsNameThePlace) {
  EXPECT_ERROR(read("nowhere"), MissingInputError, HasSubstr("nowhere: there is no such file or folder"));
  EXPECT_ERROR(read(), MissingInputError, HasSubstr("holds no prompts"));
  put("empty.txt", "\n");
  EXPECT_ERROR(read("empty.txt"), DataError, HasSubstr("empty.txt: an empty prompt"));
  put("empty.txt", "7");
  EXPECT_ERROR(read("empty.txt"), DataError,
               AllOf(HasSubstr("empty.txt: a prompt of "), HasSubstr("expected at least two")));
  put("empty.txt", "3 + 4 = 7");
  put("other.bin", "3 + 4 = 7");
  EXPECT_ERROR(read("other.bin"), DataError, HasSubstr("expected prompts in a .txt or .jsonl file"));
  put("a b.txt", "3 + 4 = 7");
  put("a-b.txt", "3 + 4 = 7");
  EXPECT_ERROR(read(), DataError, HasSubstr("both graphs would be called a-b"));
}

}  // namespace
}  // namespace tadapt

// TokenDataset: order, truncation, response starts, domains, and independence of the number of threads.
#include "data/token_dataset.h"

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
using ::testing::ElementsAre;
using ::testing::HasSubstr;

const std::filesystem::path kSource = TADAPT_SOURCE_DIR;

std::string line(const std::string& question, const std::string& response, const std::string& domain) {
  json value = {{"conversations", {{{"from", "human"}, {"value", question}}, {{"from", "gpt"}, {"value", response}}}}};
  if (!domain.empty()) value["domain"] = domain;
  return value.dump() + "\n";
}

std::vector<std::int32_t> ids_of(const TokenSequence& sequence) { return {sequence.ids.begin(), sequence.ids.end()}; }

class TokenDatasetTest : public ::testing::Test {
 protected:
  TokenDataset build(const std::string& text, const TokenDatasetOptions& options = {}) {
    std::ofstream(path_, std::ios::binary) << text;
    return TokenDataset::build(files_, path_, tokenizer_, options);
  }

  testing::TemporaryDirectory directory_;
  std::filesystem::path path_ = directory_ / "corpus.jsonl";
  RealFileSystem files_;
  Tokenizer tokenizer_ = Tokenizer::load(files_, kSource / "data/toy/target");
};

TEST_F(TokenDatasetTest, HoldsEveryConversationInOrder) {
  const TokenDataset data =
      build(line("1+1?", "2", "b") + line("two", "<think> x", "") + line("3", "4", "a") + line("5", "6", "b"));
  ASSERT_EQ(data.size(), 4);
  EXPECT_THAT(data.domains(), ElementsAre("b", "", "a"));
  const std::string bos = tokenizer_.bos();
  EXPECT_EQ(ids_of(data.sequence(0)), tokenizer_.encode(bos + "<｜User｜>1+1?<｜Assistant｜>2"));
  EXPECT_EQ(ids_of(data.sequence(1)), tokenizer_.encode(bos + "<｜User｜>two<｜Assistant｜><think>\nx"));
  std::int64_t tokens = 0;
  for (std::int64_t i = 0; i < 4; ++i) {
    const TokenSequence sequence = data.sequence(i);
    EXPECT_EQ(sequence.line, i + 1);
    ASSERT_LT(sequence.response_start, std::ssize(sequence.ids));
    EXPECT_EQ(sequence.ids[static_cast<std::size_t>(sequence.response_start) - 1], tokenizer_.id_of("<｜Assistant｜>"));
    tokens += std::ssize(sequence.ids);
  }
  EXPECT_EQ(data.total_tokens(), tokens);
  EXPECT_EQ(data.sequence(3).domain, 0);
  EXPECT_EQ(data.sequence(2).domain, 2);
  EXPECT_ERROR(data.sequence(4), ShapeError, HasSubstr("sequence 4 of a dataset of 4"));
}

TEST_F(TokenDatasetTest, CutsLongSequences) {
  const std::string text = line("a long question", "and a long response to it", "");
  const TokenDataset uncut = build(text);
  const TokenSequence whole = uncut.sequence(0);
  for (std::int64_t length = 1; length < std::ssize(whole.ids); ++length) {
    const TokenDataset data = build(text, {.max_tokens = length});
    ASSERT_EQ(data.total_tokens(), length);
    EXPECT_TRUE(std::equal(whole.ids.begin(), whole.ids.begin() + length, data.sequence(0).ids.begin()));
    EXPECT_EQ(data.sequence(0).response_start, std::min(length, whole.response_start));
  }
}

TEST_F(TokenDatasetTest, ThreadsChangeNothing) {
  std::ifstream file(kSource / "data/toy/validation.jsonl");
  const std::string text((std::istreambuf_iterator<char>(file)), {});
  const TokenDataset one = build(text);
  for (const int threads : {2, 5}) {
    const TokenDataset several = build(text, {.threads = threads});
    ASSERT_EQ(several.size(), one.size());
    EXPECT_EQ(several.fingerprint(), one.fingerprint());
    EXPECT_EQ(several.domains(), one.domains());
    for (std::int64_t i = 0; i < one.size(); ++i) {
      EXPECT_EQ(ids_of(several.sequence(i)), ids_of(one.sequence(i)));
      EXPECT_EQ(several.sequence(i).response_start, one.sequence(i).response_start);
      EXPECT_EQ(several.sequence(i).domain, one.sequence(i).domain);
    }
  }
}

TEST_F(TokenDatasetTest, BatchesJoinSeamlessly) {
  const std::string long_line = line(std::string(12 << 20, 'x'), "r", "");  // three lines exceed one batch
  const TokenDataset data =
      build(line("a", "b", "") + long_line + long_line + long_line + line("c", "d", "z"), {.max_tokens = 100});
  ASSERT_EQ(data.size(), 5);
  EXPECT_EQ(data.sequence(4).line, 5);
  EXPECT_EQ(data.sequence(4).domain, 1);
  EXPECT_EQ(ids_of(data.sequence(1)), ids_of(data.sequence(3)));
}

TEST_F(TokenDatasetTest, FingerprintSeesIdsAndBorders) {
  const std::uint64_t before = build(line("a", "b", "") + line("c", "d", "")).fingerprint();
  EXPECT_EQ(before, build(line("a", "b", "other") + line("c", "d", "domain")).fingerprint());
  EXPECT_NE(before, build(line("a", "b", "") + line("c", "e", "")).fingerprint());
  EXPECT_NE(before, build(line("c", "d", "") + line("a", "b", "")).fingerprint());
}

TEST_F(TokenDatasetTest, TheFirstBadLineIsNamed) {
  std::string text;
  for (int i = 0; i < 200; ++i) text += i == 120 || i == 150 ? "{}\n" : line("q", "r", "");
  for (const int threads : {1, 3}) {
    EXPECT_ERROR(build(text, {.threads = threads}), DataError, HasSubstr("corpus.jsonl: line 121: conversations"));
  }
}

TEST_F(TokenDatasetTest, RefusesWrongOptions) {
  EXPECT_ERROR(build(line("q", "r", ""), {.max_tokens = 0}), ConfigError, HasSubstr("0 tokens"));
  EXPECT_ERROR(build(line("q", "r", ""), {.threads = 0}), ConfigError, HasSubstr("0 threads"));
  EXPECT_ERROR(build(line("q", "r", ""), {.format = ChatFormat::kQwen}), ConfigError, HasSubstr("<|im_start|>"));
  EXPECT_ERROR(build(""), DataError, HasSubstr("no conversation"));
}

}  // namespace
}  // namespace tadapt

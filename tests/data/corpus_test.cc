// Reading JSONL: lines, blank lines, caps, and what a conversation must look like.
#include "data/corpus.h"

#include <gtest/gtest.h>

#include <fstream>

#include "tests/support/errors.h"
#include "tests/support/temporary_directory.h"

namespace tadapt {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

class CorpusTest : public ::testing::Test {
 protected:
  CorpusReader reader(const std::string& text) {
    std::ofstream(path_, std::ios::binary) << text;
    return {files_, path_};
  }
  std::vector<std::pair<std::int64_t, std::string>> lines(const std::string& text) {
    CorpusReader corpus = reader(text);
    std::vector<std::pair<std::int64_t, std::string>> found;
    for (CorpusLine line; corpus.next(line);) found.emplace_back(line.number, line.text);
    EXPECT_EQ(corpus.bytes(), text.size());
    EXPECT_EQ(corpus.bytes_read(), text.size());
    return found;
  }
  Conversation parse(const std::string& json) { return parse_conversation({7, json}, path_); }

  testing::TemporaryDirectory directory_;
  std::filesystem::path path_ = directory_ / "corpus.jsonl";
  RealFileSystem files_;
};

using Lines = std::vector<std::pair<std::int64_t, std::string>>;

TEST_F(CorpusTest, NumbersItsLines) {
  EXPECT_EQ(lines("a\nbc\n"), (Lines{{1, "a"}, {2, "bc"}}));
  EXPECT_EQ(lines("a\nbc"), (Lines{{1, "a"}, {2, "bc"}}));  // without a last newline
  EXPECT_EQ(lines("a\r\nb\n\n \t\r\n\n"), (Lines{{1, "a\r"}, {2, "b"}}));
}

TEST_F(CorpusTest, LinesMayCrossBlocks) {
  for (const std::size_t length : {(1u << 20) - 1, 1u << 20, (1u << 20) + 1, 3u << 20}) {
    const std::string longest(length, 'x');
    EXPECT_EQ(lines(longest + "\n" + longest + "\ny\n"), (Lines{{1, longest}, {2, longest}, {3, "y"}}));
  }
}

TEST_F(CorpusTest, BlankLinesBetweenAreErrors) {
  EXPECT_ERROR(lines("a\n\n \nb\n"), DataError, AllOf(HasSubstr("corpus.jsonl"), HasSubstr("line 2: blank")));
  EXPECT_ERROR(lines("\na\n"), DataError, HasSubstr("line 1: blank"));
}

TEST_F(CorpusTest, AnEmptyCorpusIsAnError) {
  EXPECT_ERROR(lines(""), DataError, HasSubstr("corpus.jsonl: no conversation"));
  EXPECT_ERROR(lines("\n\n"), DataError, HasSubstr("corpus.jsonl: no conversation"));
  EXPECT_ERROR(CorpusReader(files_, directory_ / "none.jsonl"), MissingInputError, HasSubstr("none.jsonl"));
}

TEST_F(CorpusTest, LinesHaveACap) {
  CorpusReader corpus = reader("a\n" + std::string((64 << 20) + 1, 'x'));
  CorpusLine line;
  ASSERT_TRUE(corpus.next(line));
  EXPECT_ERROR(corpus.next(line), DataError, HasSubstr("line 2: longer than 64 MiB"));
}

TEST_F(CorpusTest, ReadsConversations) {
  const Conversation one = parse(
      R"({"conversations":[{"from":"human","value":"q"},{"from":"gpt","value":"r\u00e9"}],"domain":"math","x":1})");
  ASSERT_EQ(one.turns.size(), 2u);
  EXPECT_EQ(one.turns[0].role, Role::kUser);
  EXPECT_EQ(one.turns[1].role, Role::kAssistant);
  EXPECT_EQ(one.turns[1].text, "ré");
  EXPECT_EQ(one.domain, "math");
  const Conversation more = parse(
      R"({"conversations":[{"from":"system","value":"s"},{"from":"user","value":"q"},{"from":"assistant","value":"r"},)"
      R"({"from":"human","value":"q"},{"from":"gpt","value":"r"}],"domain":null})");
  EXPECT_EQ(more.turns.size(), 5u);
  EXPECT_EQ(more.turns[0].role, Role::kSystem);
  EXPECT_EQ(more.domain, "");
}

struct BadLine {
  std::string json, message;
};

class BadLines : public CorpusTest, public ::testing::WithParamInterface<BadLine> {};

TEST_P(BadLines, NameFileLineAndKey) {
  EXPECT_ERROR(parse(GetParam().json), DataError,
               AllOf(HasSubstr("corpus.jsonl: line 7"), HasSubstr(GetParam().message)));
}

const std::string kHuman = R"({"from":"human","value":"q"})", kGpt = R"({"from":"gpt","value":"r"})";

std::string turns(const std::string& list) { return "{\"conversations\":[" + list + "]}"; }

INSTANTIATE_TEST_SUITE_P(
    All, BadLines,
    ::testing::Values(
        BadLine{"{\"conversations\":", "JSON"}, BadLine{"[1]", "expected an object"}, BadLine{"3 4", "JSON"},
        BadLine{"{}", "conversations: expected an array, found nothing"},
        BadLine{"{\"conversations\":\"x\"}", "conversations: expected an array"}, BadLine{turns("\xff"), "JSON"},
        BadLine{turns(R"({"from":"human","value":"\ud800"})"), "JSON"},
        BadLine{turns(""), "expected turns from human and gpt"}, BadLine{turns(kHuman), "the last from gpt"},
        BadLine{turns(kGpt + "," + kHuman), "conversations[0]: expected a turn from human"},
        BadLine{turns(kHuman + "," + kHuman), "conversations[1]: expected a turn from gpt"},
        BadLine{turns(kHuman + "," + kGpt + "," + kHuman), "the last from gpt"},
        BadLine{turns(kHuman + "," + kGpt + R"(,{"from":"system","value":"s"})"), "conversations[2]"},
        BadLine{turns(R"({"from":"system","value":"s"})"), "expected turns"},
        BadLine{turns(kHuman + R"(,{"from":"tool","value":"r"})"),
                "conversations[1].from: expected human, gpt or system"},
        BadLine{turns(kHuman + R"(,{"from":"gpt"})"), "conversations[1].value: expected a string, found nothing"},
        BadLine{turns(kHuman + R"(,{"value":"r"})"), "conversations[1].from"},
        BadLine{turns(kHuman + R"(,{"from":"gpt","value":""})"), "conversations[1].value: empty text"},
        BadLine{turns(kHuman + R"(,{"from":"gpt","value":["r"]})"), "conversations[1].value: expected a string"},
        BadLine{turns(kHuman + "," + kGpt).substr(0, turns(kHuman + "," + kGpt).size() - 1) + ",\"domain\":3}",
                "domain: expected a string, found 3"}));

}  // namespace
}  // namespace tadapt

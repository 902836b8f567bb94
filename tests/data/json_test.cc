// Strict JSON parsing.
#include "data/json.h"

#include <nlohmann/json.hpp>

#include "tests/support/errors.h"

namespace tadapt {
namespace {
using ::testing::AllOf;
using ::testing::HasSubstr;

TEST(JsonTest, ParsesWhatIsRight) {
  const auto json = parse_json(R"( {"a": [1, 2.5, {"a": null}], "b": {"a": "é"}} )", "x.json");
  EXPECT_EQ(json["a"][1], 2.5);
  EXPECT_EQ(json["b"]["a"], "é");
}

TEST(JsonTest, RefusesAKeyTwiceInOneObject) {
  EXPECT_ERROR(parse_json(R"({"a": {"k": 1, "l": 2, "k": 3}})", "x.json"), DataError,
               AllOf(HasSubstr("x.json"), HasSubstr("\"k\" twice")));
}

TEST(JsonTest, RefusesBrokenText) {
  for (const char* text : {"", "{", "[1,]", "{\"a\":1} x", "nul", "{\"a\" 1}", "\"\xff\"", "1e999", "{\"a\n\":1}"}) {
    EXPECT_ERROR(parse_json(text, "x.json"), DataError, HasSubstr("x.json: not valid JSON: "));
  }
}

TEST(JsonTest, RefusesAZeroByteAndWhatItWouldHide) {
  EXPECT_ERROR(parse_json(std::string("{}\0 hidden", 10), "x.json"), DataError, HasSubstr("a zero byte"));
}

TEST(JsonTest, RefusesDeepNesting) {
  EXPECT_NO_THROW(parse_json(std::string(60, '[') + std::string(60, ']'), "x.json"));
  EXPECT_ERROR(parse_json(std::string(1'000'000, '['), "x.json"), DataError, HasSubstr("deeper than 64"));
}

TEST(JsonTest, ForeignNamesFitIntoOneLine) {
  EXPECT_EQ(in_quotes("plain"), "\"plain\"");
  EXPECT_EQ(in_quotes("a\nb\"c"), "\"a\\nb\\\"c\"");
  EXPECT_EQ(in_quotes("\xff"), "\"\xEF\xBF\xBD\"");
  EXPECT_LT(in_quotes(std::string(100'000, 'x')).size(), 300u);
}

}  // namespace
}  // namespace tadapt

// What judges are shown: held-out texts have nothing in common with those described, silent texts no activation.
#include "runtime/analysis/label_texts.h"

#include <set>

#include "runtime/analysis/label_prompts.h"
#include "tests/analysis/label_fixture.h"

namespace tadapt {
namespace {
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::LabelFixture;
using ::testing::Not;
using ::testing::SizeIs;

class LabelTextsTest : public LabelFixture {
 protected:
  void SetUp() override {
    LabelFixture::SetUp();
    store_.emplace(files_, folder_ / "store");
    tokens_.emplace(store_->tokens());
    layer_.emplace(store_->layer(4));
  }
  LabelTexts texts(std::int32_t feature, std::uint64_t seed = 0) {
    const StoredFeature stored = layer_->feature(feature);
    return choose_label_texts({4, stored, *tokens_, seed});
  }
  static std::vector<LabelText> held(const LabelTexts& texts) {
    std::vector<LabelText> both = texts.held_top;
    both.insert(both.end(), texts.held_uniform.begin(), texts.held_uniform.end());
    return both;
  }
  std::optional<FeatureStore> store_;
  std::optional<StoredTokens> tokens_;
  std::optional<StoredLayer> layer_;
};

TEST_F(LabelTextsTest, NoTwoShareATokenOrReadTheSame) {
  for (const std::int32_t feature : {testing::kOften, testing::kPairs, testing::kDense, testing::kWord}) {
    SCOPED_TRACE(feature);
    const LabelTexts chosen = texts(feature);
    std::vector<LabelText> all = chosen.shown;
    for (const std::vector<LabelText>* more : {&chosen.held_top, &chosen.held_uniform, &chosen.silent})
      all.insert(all.end(), more->begin(), more->end());
    std::set<std::pair<std::int64_t, std::int32_t>> seen;
    std::set<std::string> read;
    for (const LabelText& text : all) {
      for (std::int32_t token = text.tokens.begin; token < text.tokens.end; ++token)
        EXPECT_TRUE(seen.emplace(text.sequence, token).second) << text.sequence << ", token " << token;
      EXPECT_TRUE(read.insert(plain_text(*tokens_, text)).second);
    }
  }
}

TEST_F(LabelTextsTest, SilentTextsHaveNoActivationAndAllOthersOne) {
  for (const std::int32_t feature : {testing::kOften, testing::kPairs, testing::kWord}) {
    SCOPED_TRACE(feature);
    const LabelTexts chosen = texts(feature);
    EXPECT_TRUE(chosen.can_be_detected());
    EXPECT_EQ(chosen.silent.size(), chosen.held_top.size() + chosen.held_uniform.size());
    for (const LabelText& text : chosen.silent) {
      EXPECT_FALSE(is_active(feature, text));
      EXPECT_THAT(text.near, IsEmpty());
    }
    for (const std::vector<LabelText>& active : {chosen.shown, held(chosen)})
      for (const LabelText& text : active) EXPECT_TRUE(activations(feature).contains({text.sequence, text.position}));
  }
}

TEST_F(LabelTextsTest, TextsAreSharedOutAmongShownAndHeldOut) {
  const LabelTexts often = texts(testing::kOften);
  EXPECT_THAT(often.held_top, SizeIs(5));
  EXPECT_THAT(often.held_uniform, SizeIs(5));
  EXPECT_GE(often.shown.size(), 10u);
  EXPECT_LE(often.shown.size(), 15u);
  const StoredFeature feature = layer_->feature(testing::kOften);
  EXPECT_EQ(often.shown.front().position, feature.top.front().position) << "the strongest example is shown";
  const LabelTexts dense = texts(testing::kDense);
  EXPECT_THAT(dense.silent, IsEmpty());
  EXPECT_TRUE(dense.can_be_described());
  EXPECT_FALSE(dense.can_be_detected());
  EXPECT_FALSE(texts(testing::kTwice).can_be_described());
  EXPECT_FALSE(texts(testing::kDead).can_be_described());
}

TEST_F(LabelTextsTest, SilentTextsAreDrawnBySeed) {
  const auto silent = [&](std::uint64_t seed) {
    std::vector<std::pair<std::int64_t, std::int32_t>> places;
    for (const LabelText& text : texts(testing::kOften, seed).silent) places.emplace_back(text.sequence, text.position);
    return places;
  };
  EXPECT_EQ(silent(3), silent(3));
  EXPECT_NE(silent(3), silent(4));
}

TEST_F(LabelTextsTest, MarksSayWhichTokensAreActiveAndHowMuch) {
  for (const std::int32_t number : {testing::kOften, testing::kPairs, testing::kWord}) {
    const StoredFeature feature = layer_->feature(number);
    for (const LabelText& text : texts(number).shown) {
      const std::string marked = marked_text(*tokens_, text, feature.top.front().activation);
      std::string unmarked;
      std::size_t marks = 0, at = 0;
      for (std::size_t open; (open = marked.find("⟦", at)) != marked.npos; ++marks) {
        const std::size_t close = marked.find("⟧", open), colon = marked.rfind(':', close);
        unmarked += marked.substr(at, open - at) + marked.substr(open + 3, colon - open - 3);
        const int strength = std::stoi(marked.substr(colon + 1));
        EXPECT_TRUE(1 <= strength && strength <= 10) << marked;
        at = close + 3;
      }
      unmarked += marked.substr(at);
      std::string plain = plain_text(*tokens_, text);
      for (std::string* both : {&unmarked, &plain})
        for (std::size_t i; (i = both->find('\n')) != std::string::npos;) both->replace(i, 1, "⏎");
      EXPECT_EQ(unmarked, plain);
      std::size_t active = 0;
      for (std::int32_t token = text.tokens.begin; token < text.tokens.end; ++token)
        active += activations(number).count({text.sequence, token});
      EXPECT_EQ(marks, active);
    }
  }
  const StoredFeature pairs = layer_->feature(testing::kPairs);
  const std::string strongest =
      marked_text(*tokens_, texts(testing::kPairs).shown.front(), pairs.top.front().activation);
  EXPECT_THAT(strongest, AllOf(HasSubstr(":10⟧"), HasSubstr("⟧⟦")));
}

TEST_F(LabelTextsTest, WindowsThatAreNotThereAreRefused) {
  StoredFeature feature = layer_->feature(testing::kOften);
  const std::vector<std::int32_t> beyond = {3, 256};
  feature.contrast = beyond;
  EXPECT_ERROR(choose_label_texts({4, feature, *tokens_, 0}), DataError,
               HasSubstr("feature 0 of layer 4 is active in contrast window 256 of 256"));
}

// --- The questions made of them.

class LabelPromptsTest : public LabelTextsTest {};

TEST_F(LabelPromptsTest, DetectionShowsNothingThatWasDescribed) {
  for (const std::int32_t number : {testing::kOften, testing::kPairs, testing::kWord}) {
    const StoredFeature feature = layer_->feature(number);
    const LabelSubject subject{4, feature, *tokens_, 11};
    const LabelTexts chosen = choose_label_texts(subject);
    const LabelQuestion described = describe_question(subject, chosen);
    const LabelQuestion detect = detect_question(subject, chosen, "tokens of a kind");
    const std::string asked = detect.messages[1]["content"];
    for (const LabelText& text : chosen.shown) EXPECT_THAT(asked, Not(HasSubstr(plain_text(*tokens_, text))));
    for (const LabelText& text : held(chosen)) EXPECT_THAT(asked, HasSubstr(plain_text(*tokens_, text)));
    EXPECT_THAT(asked, AllOf(HasSubstr("tokens of a kind"), Not(HasSubstr("⟦"))));
    EXPECT_THAT(std::string(described.messages[1]["content"]), HasSubstr("⟦"));
    // In the order shown, texts are what their kinds say.
    ASSERT_EQ(detect.texts.size(), chosen.silent.size() * 2);
    std::size_t at = 0;
    for (const TextKind kind : detect.texts) {
      const std::size_t begin = asked.find(" ---\n", asked.find("--- excerpt", at)) + 5;
      at = asked.find("\n--- excerpt", begin);
      const std::string text = asked.substr(begin, std::min(at, asked.size()) - begin - 1);
      const auto reads = [&](const LabelText& one) { return plain_text(*tokens_, one) == text; };
      const std::vector<LabelText>& of_kind = kind == TextKind::kTop       ? chosen.held_top
                                              : kind == TextKind::kUniform ? chosen.held_uniform
                                                                           : chosen.silent;
      EXPECT_TRUE(std::ranges::any_of(of_kind, reads)) << text;
    }
  }
}

TEST_F(LabelPromptsTest, IdsAreOfTheMessages) {
  const StoredFeature feature = layer_->feature(testing::kOften);
  const LabelSubject subject{4, feature, *tokens_, 0}, other{4, feature, *tokens_, 1};
  const LabelTexts chosen = choose_label_texts(subject);
  EXPECT_EQ(describe_question(subject, chosen).id, describe_question(subject, chosen).id);
  EXPECT_THAT(describe_question(subject, chosen).id, ::testing::MatchesRegex("describe/4/0/[0-9a-f]{16}"));
  EXPECT_NE(detect_question(subject, chosen, "x").id, detect_question(subject, chosen, "y").id);
  EXPECT_NE(detect_question(subject, chosen, "x").id, detect_question(other, chosen, "x").id) << "another order";
  const std::string asked = classify_question(subject, chosen).messages.dump();
  for (const std::string_view name : kReasoningClasses)
    EXPECT_THAT(asked, HasSubstr(fmt::format("reasoning/{}:", name)));
  EXPECT_THAT(std::string(classify_question(subject, chosen).messages[1]["content"]),
              HasSubstr(nlohmann::json(tokens_->text(100)).dump()))
      << "what it promotes";
}

TEST(JudgedLabels, AreReadFromAnswers) {
  const LabelQuestion classify{.task = LabelTask::kClassify, .id = "", .messages = {}, .texts = {}};
  const auto label = [&](const std::string& answer) { return read_judged_label(classify, answer).label; };
  EXPECT_EQ(label(R"({"label": "language"})"), "language");
  EXPECT_EQ(label("```json\n{\"label\": \" Reasoning/Hesitation \"}\n```"), "reasoning/hesitation");
  EXPECT_EQ(label("<think>maybe {\"label\": \"domain\"}</think> It is {\"label\": \"uninterpretable\"}."),
            "uninterpretable");
  const auto problem = [&](const std::string& answer) {
    const JudgedLabel judged = read_judged_label(classify, answer);
    EXPECT_TRUE(judged.label.is_null());
    return judged.problem;
  };
  EXPECT_THAT(problem("language"), HasSubstr("expected a JSON object, found \"language\""));
  EXPECT_THAT(problem(""), HasSubstr("expected a JSON object, found \"\""));
  EXPECT_THAT(problem("{\"label\": \"lang"), HasSubstr("expected a JSON object"));
  EXPECT_THAT(problem("{\"label\": \"lang}"), HasSubstr("not valid JSON"));
  EXPECT_THAT(problem(R"({"label": "reasoning"})"), HasSubstr("expected one of language"));
  EXPECT_THAT(problem(R"({"label": "grammar"})"), HasSubstr("found \"\\\"grammar\\\"\""));
  EXPECT_THAT(problem(R"({"class": "language"})"), HasSubstr("answer: label: expected a string, found nothing"));
  EXPECT_THAT(problem(R"({"label": 3})"), HasSubstr("expected a string, found 3"));

  const LabelQuestion describe{.task = LabelTask::kDescribe, .id = "", .messages = {}, .texts = {}};
  EXPECT_EQ(read_judged_label(describe, R"({"description": " numbers\n"})").label, "numbers");
  EXPECT_THAT(read_judged_label(describe, R"({"description": "  "})").problem, HasSubstr("expected a description"));
}

TEST(JudgedLabels, CountTextsThatAreToldRightly) {
  const LabelQuestion detect{
      .task = LabelTask::kDetect,
      .id = "",
      .messages = {},
      .texts = {TextKind::kSilent, TextKind::kTop, TextKind::kUniform, TextKind::kTop, TextKind::kSilent}};
  const auto label = [&](const std::string& answer) { return read_judged_label(detect, answer).label.dump(); };
  EXPECT_EQ(label(R"({"active": [2, 3, 4]})"), R"({"top":[2,2],"uniform":[1,1],"silent":[2,2]})");
  EXPECT_EQ(label(R"({"active": [1, 2, 2]})"), R"({"top":[1,2],"uniform":[0,1],"silent":[1,2]})");
  EXPECT_EQ(label(R"({"active": []})"), R"({"top":[0,2],"uniform":[0,1],"silent":[2,2]})");
  for (const char* wrong : {R"({"active": [6]})", R"({"active": [0]})", R"({"active": ["2"]})", R"({"active": 2})",
                            R"({"active": [2.5]})", "{}"})
    EXPECT_FALSE(read_judged_label(detect, wrong).problem.empty()) << wrong;
  const DetectionScore score = detection_score(read_judged_label(detect, R"({"active": [1, 2]})").label);
  EXPECT_EQ(score.balanced_top(), 0.5);
  EXPECT_EQ(score.balanced_uniform(), 0.25);
}

}  // namespace
}  // namespace tadapt

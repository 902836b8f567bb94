// Labelling without an endpoint: choices, the log under kills, questions out and answers in, and what is said of them.
#include "runtime/analysis/label_run.h"

#include <cmath>
#include <set>
#include <sstream>

#include "runtime/bundle/feature_set.h"
#include "tests/analysis/label_fixture.h"
#include "tests/support/faulty_file_system.h"

namespace tadapt {
namespace {
using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::LabelFixture;
using ::testing::Not;
using Json = nlohmann::ordered_json;

// --- The log.

LabelRecord numbered(int number) {
  return {.adapters = "a",
          .task = LabelTask::kClassify,
          .layer = 0,
          .feature = number,
          .label = "language",
          .problem = "",
          .id = fmt::format("classify/0/{}/x", number),
          .model = "m",
          .prompt_version = "classify-1",
          .prompt = Json::array(),
          .answer = "{}",
          .prompt_tokens = 10,
          .answer_tokens = 2};
}

std::vector<std::int32_t> features_in(FileSystem& files, const std::filesystem::path& path) {
  std::vector<std::int32_t> features;
  read_label_lines(files, path,
                   [&](const LabelRecord& record, const std::string&) { features.push_back(record.feature); });
  return features;
}

TEST(LabelLogs, KilledAtAnyWriteTheyGoOn) {
  const std::filesystem::path path = "/labels.jsonl";
  int kills = 0;
  for (std::int64_t operation = 1; operation < 100; ++operation) {
    testing::FaultyFileSystem files;
    files.fail_at(operation, "killed");  // a write stops half-way
    try {
      LabelLog log(files, path);
      for (int i = 0; i < 3; ++i) log.append(numbered(i));
      break;
    } catch (const Error&) {
      ++kills;
    }
    const std::vector<std::int32_t> kept = files.exists(path) ? features_in(files, path) : std::vector<std::int32_t>();
    LabelLog log(files, path);
    for (int i = static_cast<int>(kept.size()); i < 3; ++i) log.append(numbered(i));
    EXPECT_EQ(features_in(files, path), (std::vector<std::int32_t>{0, 1, 2})) << "killed at operation " << operation;
  }
  EXPECT_GE(kills, 4);
}

TEST(LabelLogs, OnlyATornLineIsCutOff) {
  testing::FaultyFileSystem files;
  const std::string whole = to_line(numbered(1));
  const auto reopened = [&](const std::string& content) {
    write_atomically(files, "/labels.jsonl", content);
    LabelLog log(files, "/labels.jsonl");
    log.append(numbered(2));
    return read_text(files, "/labels.jsonl");
  };
  const std::string next = to_line(numbered(2));
  EXPECT_EQ(reopened(whole), whole + next);
  EXPECT_EQ(reopened(whole + whole.substr(0, 30)), whole + next);
  EXPECT_EQ(reopened(whole.substr(0, whole.size() - 1)), whole + next) << "only its end was missing";
  EXPECT_EQ(reopened(whole.substr(0, 5)), next);
  EXPECT_EQ(reopened(""), next);
}

TEST(LabelLogs, AreOfOneJudgeAndTheSameAdapters) {
  testing::FaultyFileSystem files;
  write_atomically(files, "/labels.jsonl", to_line(numbered(1)));
  const LabelAnswers answers(files, "/labels.jsonl", "a", "m");
  EXPECT_EQ(*answers.find("classify/0/1/x"), "language");
  EXPECT_EQ(answers.find("classify/0/2/x"), nullptr);
  EXPECT_EQ(answers.used(LabelTask::kClassify).prompt, 10);
  EXPECT_ERROR(LabelAnswers(files, "/labels.jsonl", "b", "m"), ConfigError,
               HasSubstr("/labels.jsonl:1: a label of features of 'a', not of 'b'; choose another --out"));
  EXPECT_ERROR(LabelAnswers(files, "/labels.jsonl", "a", "n"), ConfigError, HasSubstr("of the judge 'm', not of 'n'"));
  EXPECT_EQ(LabelAnswers(files, "/nothing.jsonl", "b", "n").find("x"), nullptr);
}

// --- Numbers.

TEST(LabelIntervals, AreWilsonsAndNormal) {
  const auto expect = [](const Estimate& estimate, double value, double low, double high) {
    EXPECT_NEAR(estimate.value, value, 1e-12);
    EXPECT_NEAR(estimate.low, low, 5e-4);
    EXPECT_NEAR(estimate.high, high, 5e-4);
  };
  expect(share_of(8, 10), 0.8, 0.4902, 0.9433);
  expect(share_of(0, 20), 0.0, 0.0, 0.1611);
  expect(share_of(481, 1000), 0.481, 0.4502, 0.5120);
  EXPECT_TRUE(std::isnan(share_of(0, 0).value));
  expect(mean_of({0.5, 0.75, 1.0}), 0.75, 0.75 - 1.96 * 0.25 / std::sqrt(3.0), 1.0);
  EXPECT_TRUE(std::isnan(mean_of({}).value));
  EXPECT_TRUE(std::isnan(mean_of({0.7}).low));
}

// --- The job.

class LabelRunTest : public LabelFixture {
 protected:
  std::vector<Json> lines_of(const std::string& name) {
    std::vector<Json> lines;
    std::istringstream text(read_text(files_, folder_ / name));
    for (std::string line; std::getline(text, line);) lines.push_back(Json::parse(line));
    return lines;
  }
  void put(const std::string& name, const std::vector<Json>& lines) {
    std::string text;
    for (const Json& line : lines) text += line.dump() + "\n";
    write_atomically(files_, folder_ / name, text);
  }
  static std::string task_of(const Json& line) {
    const std::string id = line.contains("id") ? line["id"] : line["custom_id"];
    return id.substr(0, id.find('/'));
  }
  /// The excerpts of a question for detection in which a feature is active, told by somebody who knows.
  std::vector<int> truth(const Json& question) {
    const std::string id = question["custom_id"], text = question["body"]["messages"][1]["content"];
    const std::int32_t feature = id[id.find('/', 7) + 1] - '0';
    const StoredTokens tokens = FeatureStore(files_, folder_ / "store").tokens();
    std::set<std::string> active;
    for (const auto& [place, activation] : activations(feature)) {
      const auto [sequence, position] = place;
      const auto range = window_around(position, std::ssize(tokens.with_number(sequence).ids));
      active.insert(plain_text(tokens, {.sequence = sequence, .position = position, .tokens = range, .near = {}}));
    }
    std::vector<int> numbers;
    for (int number = 1;; ++number) {
      const std::string head = fmt::format("--- excerpt {} ---\n", number);
      const std::size_t at = text.find(head);
      if (at == text.npos) return numbers;
      const std::size_t end = text.find("\n\n--- excerpt", at);
      const std::size_t begin = at + head.size();
      const std::size_t stop = end == text.npos ? text.size() - 1 : end;
      if (active.contains(text.substr(begin, stop - begin))) numbers.push_back(number);
    }
  }
  Json answered(const Json& question) {
    const std::string id = question["custom_id"];
    Json said = {{"label", "reasoning/planning"}};
    if (task_of(question) == "describe") said = {{"description", fmt::format("the feature of {}", id)}};
    if (task_of(question) == "detect") said = {{"active", truth(question)}};
    return {{"id", id}, {"answer", said.dump()}};
  }
  std::vector<Json> exported(const LabelRequest& asked, const std::string& file) {
    const LabelEnvironment around = environment();
    LabelJob(asked, around, LabelAccess::kRead).export_questions(folder_ / file);
    return lines_of(file);
  }
  void import(const LabelRequest& asked, const std::string& file) {
    const LabelEnvironment around = environment();
    LabelJob job(asked, around, LabelAccess::kWrite);
    job.import_answers(folder_ / file);
    job.summarise();
  }
  std::vector<Json> all_answered(const std::vector<Json>& questions) {
    std::vector<Json> answers;
    for (const Json& question : questions) answers.push_back(answered(question));
    return answers;
  }
};

TEST_F(LabelRunTest, QuestionsGoOutAndAnswersComeIn) {
  const LabelRequest asked = request("out");
  const std::vector<Json> first = exported(asked, "first.jsonl");
  // Two layers, of which three features are asked for more than class and description, and a dense one for those.
  EXPECT_EQ(first.size(), 2u * 4 * 2);
  EXPECT_THAT(said_,
              AllOf(HasSubstr("first.jsonl: 16 questions; left to do: import the answers"), HasSubstr("6 features")));
  EXPECT_EQ(first[0]["url"], "/v1/chat/completions");
  EXPECT_EQ(first[0]["body"]["model"], "judge");
  put("answers.jsonl", all_answered(first));
  import(asked, "answers.jsonl");
  const std::vector<Json> second = exported(asked, "second.jsonl");
  EXPECT_EQ(second.size(), 6u);
  for (const Json& line : second) EXPECT_EQ(task_of(line), "detect");
  EXPECT_THAT(std::string(second[0]["body"]["messages"][1]["content"]), HasSubstr("the feature of describe/1/0/"));
  put("more.jsonl", all_answered(second));
  import(asked, "more.jsonl");
  EXPECT_THAT(exported(asked, "third.jsonl"), ::testing::IsEmpty());

  const Json summary = Json::parse(read_text(files_, folder_ / "out/labels.summary.json"));
  EXPECT_EQ(summary["features"]["live"], 10);
  EXPECT_EQ(summary["features"]["sampled"], false);
  EXPECT_EQ(summary["skipped"]["few_texts"], 2) << "active on two tokens";
  EXPECT_EQ(summary["skipped"]["few_to_detect"], 2) << "silent nowhere";
  EXPECT_EQ(summary["skipped"]["without_description"], 0);
  EXPECT_EQ(summary["classes"]["reasoning"]["features"], 8);
  EXPECT_EQ(summary["reasoning"]["planning"]["value"], 1.0);
  EXPECT_EQ(summary["classes"]["language"]["value"], 0.0);
  EXPECT_EQ(summary["detection"]["top"]["features"], 6);
  EXPECT_EQ(summary["detection"]["top"]["value"], 1.0) << "who knows where features are active errs nowhere";
  EXPECT_EQ(summary["detection"]["uniform"]["value"], 1.0);
  EXPECT_EQ(summary["tasks"]["detect"]["unanswered"], 0);
  EXPECT_THAT(said_, AllOf(HasSubstr("all 10 live features"), HasSubstr("reasoning/planning")));

  const FeatureLabels labels = read_feature_labels(files_, folder_ / "out/labels.jsonl");
  EXPECT_EQ(labels.find(4, testing::kOften)->subclass, "planning");
  EXPECT_THAT(labels.find(4, testing::kOften)->description, HasSubstr("the feature of describe/4/0/"));
  EXPECT_EQ(labels.find(4, testing::kOften)->detection->silent.right, 10);
  EXPECT_EQ(labels.find(4, testing::kTwice), nullptr);
}

TEST_F(LabelRunTest, QuestionsDoNotDependOnTheOrderOfAnswers) {
  const LabelRequest asked = request("out");
  const std::vector<Json> first = exported(asked, "first.jsonl");
  put("answers.jsonl", all_answered(first));
  import(asked, "answers.jsonl");
  const std::vector<Json> second = exported(asked, "second.jsonl");
  LabelRequest other = request("other");
  std::vector<Json> turned = all_answered(first);
  std::ranges::reverse(turned);
  for (const Json& answer : turned) {
    put("one.jsonl", {answer});
    import(other, "one.jsonl");
  }
  EXPECT_EQ(exported(other, "second-other.jsonl"), second);
}

TEST_F(LabelRunTest, AnswersOfABatchAreTaken) {
  LabelRequest asked = request("out");
  asked.tasks = {LabelTask::kClassify};
  const std::vector<Json> questions = exported(asked, "questions.jsonl");
  std::vector<Json> batch;
  for (const Json& question : questions)
    batch.push_back({{"id", "batch_req_1"},
                     {"custom_id", question["custom_id"]},
                     {"response",
                      {{"status_code", 200},
                       {"body",
                        {{"choices", {{{"message", {{"role", "assistant"}, {"content", R"({"label": "domain"})"}}}}}},
                         {"usage", {{"prompt_tokens", 900}, {"completion_tokens", 7}}}}}}},
                     {"error", nullptr}});
  batch[1]["response"]["body"] = nullptr;
  put("batch.jsonl", batch);
  import(asked, "batch.jsonl");
  const Json summary = Json::parse(read_text(files_, folder_ / "out/labels.summary.json"));
  EXPECT_EQ(summary["classes"]["domain"]["features"], 7);
  EXPECT_EQ(summary["tasks"]["classify"]["unlabelled"], 1);
  EXPECT_EQ(summary["tokens"]["classify"]["prompt_tokens"], 7 * 900);
}

TEST_F(LabelRunTest, AnswersThatAreOfNoUseAreKeptAndAskedAgainWhenWanted) {
  LabelRequest asked = request("out");
  asked.tasks = {LabelTask::kClassify};
  const std::vector<Json> questions = exported(asked, "questions.jsonl");
  put("answers.jsonl", {{{"id", questions[0]["custom_id"]}, {"answer", "I cannot tell"}}, answered(questions[1])});
  import(asked, "answers.jsonl");
  const std::vector<Json> kept = lines_of("out/labels.jsonl");
  ASSERT_EQ(kept.size(), 2u);
  EXPECT_TRUE(kept[0]["label"].is_null());
  EXPECT_EQ(kept[0]["answer"], "I cannot tell");
  EXPECT_THAT(std::string(kept[0]["problem"]), HasSubstr("expected a JSON object"));
  EXPECT_THAT(said_, HasSubstr("classify: 8 questions, 1 labelled, 1 answered without a label, 6 unanswered"));
  EXPECT_EQ(exported(asked, "open.jsonl").size(), 6u);
  asked.again = true;
  EXPECT_EQ(exported(asked, "open.jsonl").size(), 7u);
  put("answers.jsonl", {answered(questions[0])});
  import(asked, "answers.jsonl");
  EXPECT_EQ(exported(asked, "open.jsonl").size(), 6u);
  EXPECT_THAT(said_, HasSubstr("classify: 8 questions, 2 labelled, 0 answered without a label, 6 unanswered"));
}

TEST_F(LabelRunTest, WrongImportsAreNamedAndTheOthersKept) {
  const LabelRequest asked = request("out");
  const std::vector<Json> questions = exported(asked, "questions.jsonl");
  put("answers.jsonl", {answered(questions[0]), {{"id", "classify/9/9/0"}, {"answer", "x"}}, answered(questions[1])});
  EXPECT_ERROR(import(asked, "answers.jsonl"), DataError,
               AllOf(HasSubstr("answers.jsonl:2: \"classify/9/9/0\" is the id of no question")));
  EXPECT_EQ(lines_of("out/labels.jsonl").size(), 2u);
  put("twice.jsonl", {answered(questions[2]), answered(questions[2])});
  EXPECT_ERROR(import(asked, "twice.jsonl"), DataError,
               AllOf(HasSubstr("twice.jsonl:2: "), HasSubstr("twice.jsonl:1")));
  put("none.jsonl", {{{"id", questions[2]["custom_id"]}}});
  EXPECT_ERROR(import(asked, "none.jsonl"), DataError, HasSubstr("none.jsonl:1: answer: expected a string"));
  write_atomically(files_, folder_ / "broken.jsonl", "{\"id\": \n");
  EXPECT_ERROR(import(asked, "broken.jsonl"), DataError, HasSubstr("broken.jsonl:1: not valid JSON"));
  EXPECT_EQ(lines_of("out/labels.jsonl").size(), 2u);
}

TEST_F(LabelRunTest, FeaturesAreChosenBySampleAndSet) {
  const FeatureStore store(files_, folder_ / "store");
  const auto chosen = [&](const FeatureChoice& choice) {
    const ChosenFeatures found = choose_features(files_, store, choice);
    std::set<std::pair<int, std::int64_t>> features;
    for (const auto& [layer, places] : found.by_layer)
      for (const std::int64_t place : places) features.emplace(layer, place);
    EXPECT_EQ(std::ssize(features), found.count);
    return features;
  };
  const auto all = chosen({});
  EXPECT_EQ(all.size(), 10u) << "all but the dead ones";
  for (const auto& [layer, place] : all) EXPECT_NE(place, testing::kDead);
  auto smaller = chosen({.set = {}, .sample = 1, .seed = 3});
  for (std::int64_t sample = 2; sample <= 12; ++sample) {
    const auto larger = chosen({.set = {}, .sample = sample, .seed = 3});
    EXPECT_EQ(std::ssize(larger), std::min<std::int64_t>(sample, 10));
    EXPECT_TRUE(std::ranges::includes(larger, smaller));
    smaller = larger;
  }
  EXPECT_NE(chosen({.set = {}, .sample = 4, .seed = 3}), chosen({.set = {}, .sample = 4, .seed = 4}));

  FeatureSet set{
      .name = "s", .rule = "by hand", .adapters = "transcoder 0123456789abcdef", .features = {{4, {0, 2, 5}}}};
  write_feature_set(files_, folder_ / "set.json", set);
  EXPECT_EQ(chosen({.set = folder_ / "set.json"}), (std::set<std::pair<int, std::int64_t>>{{4, 0}, {4, 5}}));
  EXPECT_EQ(chosen({.set = folder_ / "set.json", .sample = 1}).size(), 1u);
  set.features = {{4, {testing::kDead}}};
  write_feature_set(files_, folder_ / "set.json", set);
  EXPECT_ERROR(chosen({.set = folder_ / "set.json"}), ConfigError, HasSubstr("was ever active"));
  set.adapters = "transcoder of others";
  write_feature_set(files_, folder_ / "set.json", set);
  EXPECT_ERROR(chosen({.set = folder_ / "set.json"}), ConfigError, HasSubstr("'transcoder of others'"));
}

TEST_F(LabelRunTest, StoresWithoutContrastWindowsCannotBeDetectedIn) {
  write_store("old", 0);
  LabelRequest asked = request("out");
  asked.features = folder_ / "old";
  EXPECT_ERROR(exported(asked, "questions.jsonl"), DataError,
               AllOf(HasSubstr("old: has no contrast windows"), HasSubstr("collect the features anew")));
  asked.tasks = {LabelTask::kClassify, LabelTask::kDescribe};
  EXPECT_EQ(exported(asked, "questions.jsonl").size(), 16u);
  asked.features = folder_ / "nothing";
  EXPECT_ERROR(exported(asked, "questions.jsonl"), MissingInputError, HasSubstr("features.json"));
}

TEST_F(LabelRunTest, ForecastsCountWhatIsOpen) {
  const LabelRequest asked = request("out");
  const LabelEnvironment around = environment();
  const auto forecast = [&] {
    const LabelSummary open = LabelJob(asked, around, LabelAccess::kRead).summary(Undescribed::kExpected);
    return forecast_text(open, {.per_million_in = 1000.0, .per_million_out = 0.0, .requests_per_minute = 11.0});
  };
  EXPECT_THAT(forecast(),
              AllOf(HasSubstr("22 requests (classify 8, describe 8, detect 6) about 10 features"),
                    HasSubstr("bytes / 4"), HasSubstr("; cost "), HasSubstr("; 0.03 hours at 11 requests")));
  EXPECT_FALSE(std::filesystem::exists(folder_ / "out"));
  put("answers.jsonl", all_answered(exported(asked, "questions.jsonl")));
  import(asked, "answers.jsonl");
  EXPECT_THAT(forecast(), HasSubstr("6 requests (classify 0, describe 0, detect 6)"));
}

TEST(Completions, AreReadFromBodies) {
  const JudgeAnswer whole = read_completion(
      R"({"choices": [{"message": {"content": "yes"}}], "usage": {"prompt_tokens": 5, "completion_tokens": 2}})");
  EXPECT_EQ(whole.text, "yes");
  EXPECT_EQ(whole.prompt_tokens, 5);
  EXPECT_EQ(whole.answer_tokens, 2);
  EXPECT_EQ(read_completion(R"({"choices": [{"message": {"content": "yes"}}], "usage": null})").problem, "");
  for (const char* broken :
       {"", "{", "[]", R"({"choices": []})", R"({"choices": [{"message": {"content": null}}]})", R"({"choices": 3})"}) {
    EXPECT_THAT(read_completion(broken).problem, HasSubstr("the endpoint's answer")) << broken;
    EXPECT_EQ(read_completion(broken).text, broken);
  }
}

}  // namespace
}  // namespace tadapt

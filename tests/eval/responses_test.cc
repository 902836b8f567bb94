// Responses: the same bytes for any ranks, taken up again, and those of Hugging Face transformers
// (tests/golden/make_generation_golden.py).
#include "runtime/eval/responses.h"

#include <nlohmann/json.hpp>

#include "data/corpus.h"
#include "tests/support/errors.h"
#include "tests/support/temporary_directory.h"
#include "tests/support/thread_communicator.h"

namespace tadapt {
namespace {

namespace fs = std::filesystem;
using ::testing::ContainsRegex;
using ::testing::HasSubstr;

class Responses : public ::testing::Test {
 protected:
  static std::vector<Question> ten_questions(FileSystem& files, const fs::path& toy) {
    std::vector<Question> questions = load_questions(files, toy / "questions.jsonl", Answers::kNeeded);
    questions.resize(10);
    return questions;
  }

  /// On so many ranks; what rank 0 gets.
  std::vector<Response> sample(int ranks, const fs::path& file, bool is_stopped = false) {
    std::vector<Response> found;
    testing::run_ranks(ranks, [&](Communicator& world) {
      RealFileSystem files;
      Context context = Context::cpu(1);
      const Decoder decoder = Decoder::load(context, files, toy_ / "target", DType::kFloat32);
      const GenerationModel model{decoder, uniform_splice(decoder.config().layers, {})};
      const RunEnvironment environment{.files = files,
                                       .world = world,
                                       .context = context,
                                       .who = "a test",
                                       .print = [](const std::string&) {},
                                       .stop_requested = [&] { return is_stopped; },
                                       .heartbeat = [](const std::string&) {}};
      const ResponseJob job{.name = "test",
                            .model = model,
                            .tokenizer = tokenizer_,
                            .prompts = prompts_,
                            .samples = 2,
                            .options = options_,
                            .identity = "toy",
                            .file = file,
                            .stream = {}};
      std::vector<Response> mine = sample_responses(job, environment);
      if (world.rank() == 0) found = std::move(mine);
    });
    return found;
  }
  std::vector<std::string> files_in_folder() { return files_.list(folder_.path()); }

  const fs::path toy_ = fs::path(TADAPT_SOURCE_DIR) / "data/toy";
  RealFileSystem files_;
  testing::TemporaryDirectory folder_;
  const Tokenizer tokenizer_ = Tokenizer::load(files_, toy_ / "target");
  const std::vector<Prompt> prompts_ = make_prompts(ten_questions(files_, toy_), ChatFormat::kDeepseek, tokenizer_);
  GenerationOptions options_{
      .max_new_tokens = 40, .stop_tokens = stop_tokens(files_, toy_ / "target", tokenizer_), .batch_sequences = 4};
};

TEST_F(Responses, AreTheSameBytesForAnyRanksAndInOrder) {
  const std::vector<Response> responses = sample(1, folder_ / "one.jsonl");
  options_.batch_sequences = 7;
  sample(3, folder_ / "three.jsonl");
  EXPECT_EQ(read_text(files_, folder_ / "one.jsonl"), read_text(files_, folder_ / "three.jsonl"));
  EXPECT_EQ(files_in_folder(), (std::vector<std::string>{"one.jsonl", "three.jsonl"}));
  ASSERT_EQ(responses.size(), 20u);
  for (std::size_t i = 0; i < 20; ++i) {
    EXPECT_EQ(responses[i].prompt, static_cast<std::int64_t>(i / 2));
    EXPECT_EQ(responses[i].sample, static_cast<std::int64_t>(i % 2));
  }
  CorpusReader lines(files_, folder_ / "one.jsonl");  // eval reads them as conversations
  CorpusLine line;
  ASSERT_TRUE(lines.next(line));
  const Conversation conversation = parse_conversation(line, "one.jsonl");
  EXPECT_EQ(conversation.turns[0].text, prompts_[0].question);
  EXPECT_EQ(conversation.turns[1].text, "<think>\n" + tokenizer_.decode(responses[0].ids));
}

TEST_F(Responses, AreTakenUpAfterAnInterruption) {
  sample(1, folder_ / "whole.jsonl");
  const std::string whole = read_text(files_, folder_ / "whole.jsonl");
  EXPECT_ERROR(sample(1, folder_ / "cut.jsonl", true), Error, HasSubstr("start it again"));
  std::string part = read_text(files_, folder_ / "cut.jsonl.part-0");
  const std::string first_line = part.substr(0, part.find('\n') + 1);
  part.resize(part.size() / 2);  // dies while it writes a line
  write_atomically(files_, folder_ / "cut.jsonl.part-0", part);
  write_atomically(files_, folder_ / "cut.jsonl.part-5", first_line);
  sample(2, folder_ / "cut.jsonl");
  EXPECT_EQ(read_text(files_, folder_ / "cut.jsonl"), whole);
  EXPECT_EQ(files_in_folder(), (std::vector<std::string>{"cut.jsonl", "whole.jsonl"}));
  sample(1, folder_ / "cut.jsonl");  // there is nothing left to do
  EXPECT_EQ(read_text(files_, folder_ / "cut.jsonl"), whole);
}

TEST_F(Responses, OfAnotherJobAreNotMixedIn) {
  sample(1, folder_ / "a.jsonl");
  options_.seed = 1;
  EXPECT_ERROR(sample(1, folder_ / "a.jsonl"), ConfigError, HasSubstr("responses of another job"));
  write_atomically(files_, folder_ / "b.jsonl", "{}\n");
  EXPECT_ERROR(sample(1, folder_ / "b.jsonl"), DataError, HasSubstr("no response"));
}

TEST_F(Responses, GreedyOnesAreTransformers) {
  const auto golden =
      nlohmann::json::parse(read_text(files_, fs::path(TADAPT_SOURCE_DIR) / "tests/golden/generation.json"));
  Context context = Context::cpu(2);
  options_.rule.temperature = 0;
  options_.max_new_tokens = 120;
  for (const char* name : {"base", "target"}) {
    const Decoder decoder = Decoder::load(context, files_, toy_ / name, DType::kFloat32);
    const GenerationModel model{decoder, uniform_splice(decoder.config().layers, {})};
    std::vector<Question> questions;
    for (const auto& one : golden.at(name)) questions.push_back({.question = one.at("question"), .answer = {}});
    std::vector<GenerationRequest> requests;
    for (const Prompt& prompt : make_prompts(questions, ChatFormat::kDeepseek, tokenizer_)) {
      EXPECT_EQ(prompt.ids, golden.at(name).at(requests.size()).at("prompt").get<std::vector<std::int32_t>>());
      requests.push_back({.prompt = prompt.ids, .sample = 0});
    }
    const auto check = [&](std::size_t request, const Generated& generated) {
      EXPECT_EQ(generated.ids, golden.at(name).at(request).at("response").get<std::vector<std::int32_t>>())
          << name << " " << questions[request].question;
    };
    generate(context, model, requests, options_, {.token = {}, .done = check, .step = {}});
  }
}

TEST_F(Responses, QuestionsAndStopTokensAreChecked) {
  const auto questions = [&](const char* text, Answers answers) {
    write_atomically(files_, folder_ / "q.jsonl", text);
    return load_questions(files_, folder_ / "q.jsonl", answers);
  };
  EXPECT_EQ(questions("{\"prompt\": \"a\"}\n{\"question\": \"b\"}\n", Answers::kIgnored).back().question, "b");
  EXPECT_ERROR(questions("", Answers::kIgnored), DataError, HasSubstr("q.jsonl"));
  EXPECT_ERROR(questions("{\"question\": \"b\"}\n", Answers::kNeeded), DataError, HasSubstr("line 1: answer"));
  EXPECT_ERROR(questions("{\"question\": \"\"}\n", Answers::kIgnored), DataError, HasSubstr("empty question"));
  EXPECT_ERROR(questions("{\"question\": 3}\n", Answers::kIgnored), DataError, HasSubstr("question"));
  const DecoderConfig config = load_decoder_config(files_, toy_ / "target");
  std::string long_question;
  for (int i = 0; i < 1200; ++i) long_question += "one ";
  const std::vector<Question> two =
      questions(("{\"prompt\": \"a\"}\n{\"prompt\": \"" + long_question + "\"}\n").c_str(), Answers::kIgnored);
  const std::vector<Prompt> prompts = make_prompts(two, ChatFormat::kDeepseek, tokenizer_);
  EXPECT_ERROR(require_room(prompts, config), DataError,
               ContainsRegex("q.jsonl: line 2: a prompt of [0-9]* tokens leaves no room.*1024 positions"));
  require_room({prompts.front()}, config);
  EXPECT_EQ(stop_tokens(files_, toy_ / "target", tokenizer_), std::vector<std::int32_t>{419});
  write_atomically(files_, folder_ / "generation_config.json", "{\"eos_token_id\": [7, 3]}");
  EXPECT_EQ(stop_tokens(files_, folder_.path(), tokenizer_), (std::vector<std::int32_t>{3, 7, 419}));
}

}  // namespace
}  // namespace tadapt

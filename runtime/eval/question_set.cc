#include "runtime/eval/question_set.h"

#include <xxhash.h>

#include "runtime/eval/grader.h"
#include "runtime/eval/response_metrics.h"
#include "runtime/eval/responses.h"
#include "runtime/train/agreement.h"
#include "runtime/train/option_table.h"

namespace tadapt {
namespace {

using Json = nlohmann::ordered_json;

GradedResponse grade(const ResponseJob& job, const Response& response, const std::string& expected) {
  const std::optional<std::size_t> cut = degeneration(response.ids);
  const std::size_t tokens = cut.value_or(response.ids.size());
  const std::string text = response_text(job, response, tokens);
  const WordCounts words = count_words(text);
  return {.question = response.prompt,
          .correct = is_correct(text, expected),
          .degenerate = cut.has_value(),
          .finished = response.reason == name(StopReason::kStopToken),
          .tokens = static_cast<std::int64_t>(tokens),
          .waits = words.waits,
          .hesitations = words.hesitations};
}

std::string fingerprint(const std::vector<Question>& questions) {
  std::string text;
  for (const Question& question : questions) text += question.question + '\0' + question.answer + '\0';
  return fmt::format("{:016x}", XXH3_64bits(text.data(), text.size()));
}

/// What the responses depend on.
Json subject_of(const QuestionRequest& request, const std::vector<Question>& questions) {
  const GenerationOptions& generation = request.generation;
  Json subject = {{"question_file", fingerprint(questions)},     {"samples", request.samples},
                  {"temperature", generation.rule.temperature},  {"top_p", generation.rule.top_p},
                  {"max_new_tokens", generation.max_new_tokens}, {"seed", generation.seed}};
  for (const char* key : {"corpus.format", "model.compute", "train.compute"})
    subject[key] = find_option(key)->value(request.options);
  return subject;
}

}  // namespace

QuestionSet::QuestionSet(QuestionRequest request, const RunEnvironment& environment)
    : request_(std::move(request)), environment_(environment) {
  const std::filesystem::path& target = request_.options.model.target;
  agree(environment.world, [&] {
    questions_ = load_questions(environment.files, request_.questions, Answers::kNeeded);
    tokenizer_ = Tokenizer::load(environment.files, target);
    prompts_ = make_prompts(questions_, request_.options.corpus.format, *tokenizer_);
    request_.generation.stop_tokens = stop_tokens(environment.files, target, *tokenizer_);
    require_room(prompts_, load_decoder_config(environment.files, target));
    subject_ = subject_of(request_, questions_);
  });
}

ModelResponses QuestionSet::ask(const AskedModel& asked) const {
  const ResponseJob job{.name = fmt::format("benchmark: {}", asked.name),
                        .model = asked.model,
                        .tokenizer = *tokenizer_,
                        .prompts = prompts_,
                        .samples = request_.samples,
                        .options = request_.generation,
                        .identity = asked.identity,
                        .file = request_.directory / fmt::format("responses-{}.jsonl", asked.name),
                        .progress_seconds = request_.options.log.every_seconds,
                        .stream = {}};
  ModelResponses graded{.name = asked.name, .responses = {}};
  for (const Response& response : sample_responses(job, environment_))
    graded.responses.push_back(grade(job, response, questions_[static_cast<std::size_t>(response.prompt)].answer));
  return graded;
}

}  // namespace tadapt

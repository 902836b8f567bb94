#include "runtime/eval/benchmark.h"

#include <xxhash.h>

#include "runtime/eval/grader.h"
#include "runtime/eval/model_set.h"
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

/// What the numbers of a benchmark depend on.
Json subject_of(const BenchmarkRequest& request, const std::vector<Question>& questions, const std::string& edits) {
  const GenerationOptions& generation = request.generation;
  Json subject = {{"question_file", fingerprint(questions)},     {"samples", request.samples},
                  {"temperature", generation.rule.temperature},  {"top_p", generation.rule.top_p},
                  {"max_new_tokens", generation.max_new_tokens}, {"seed", generation.seed}};
  for (const char* key : {"corpus.format", "model.compute", "train.compute"})
    subject[key] = find_option(key)->value(request.options);
  if (!edits.empty()) subject["edits"] = edits;
  return subject;
}

}  // namespace

Benchmark run_benchmark(const BenchmarkRequest& request, const RunEnvironment& environment) {
  const RunOptions& options = request.options;
  std::vector<Question> questions;
  std::vector<Prompt> prompts;
  std::optional<Tokenizer> tokenizer;
  GenerationOptions generation = request.generation;
  std::vector<ModelKind> kinds;
  std::string base_refusal;
  agree(environment.world, [&] {
    questions = load_questions(environment.files, request.questions, Answers::kNeeded);
    tokenizer = Tokenizer::load(environment.files, options.model.target);
    prompts = make_prompts(questions, options.corpus.format, *tokenizer);
    generation.stop_tokens = stop_tokens(environment.files, options.model.target, *tokenizer);
    const DecoderConfig base = load_decoder_config(environment.files, options.model.base),
                        target = load_decoder_config(environment.files, options.model.target);
    require_room(prompts, target);
    base_refusal = base_row_refusal(base, target).value_or("");
    if (base_refusal.empty()) {
      require_room(prompts, base);
      kinds.push_back(ModelKind::kBase);
    }
    kinds.push_back(ModelKind::kHybrid);
    if (!request.adapters.path.empty()) kinds.push_back(ModelKind::kAdapter);
    kinds.push_back(ModelKind::kTarget);
  });
  ModelSet models(options, request.adapters, kinds, environment);
  std::vector<ModelResponses> graded;
  for (const ModelKind kind : kinds) {
    const GenerationModel model = models.model(kind);
    const ResponseJob job{.name = fmt::format("benchmark: {}", name(kind)),
                          .model = model,
                          .tokenizer = *tokenizer,
                          .prompts = prompts,
                          .samples = request.samples,
                          .options = generation,
                          .identity = models.identity(kind),
                          .file = request.directory / fmt::format("responses-{}.jsonl", name(kind)),
                          .progress_seconds = options.log.every_seconds,
                          .stream = {}};
    graded.push_back({.name = name(kind), .responses = {}});
    for (const Response& response : sample_responses(job, environment))
      graded.back().responses.push_back(
          grade(job, response, questions[static_cast<std::size_t>(response.prompt)].answer));
  }
  if (environment.world.rank() != 0) return {};
  Benchmark benchmark{.subject = subject_of(request, questions, models.edits()),
                      .report = score_benchmark(graded, static_cast<std::int64_t>(questions.size()), generation.seed)};
  benchmark.report.base_refusal = base_refusal;
  return benchmark;
}

}  // namespace tadapt

// `tadapt-dist generate`: what a model writes to prompts.
#include <cstdio>

#include "launcher/artifact.h"
#include "launcher/asked_models.h"
#include "launcher/commands.h"
#include "launcher/run_config.h"
#include "launcher/run_session.h"
#include "runtime/eval/model_set.h"
#include "runtime/eval/responses.h"
#include "runtime/train/agreement.h"

namespace tadapt {
namespace {

namespace fs = std::filesystem;
namespace po = boost::program_options;

CommandSyntax syntax() {
  CommandSyntax syntax{
      .usage =
          "generate [PATH] [--model adapter|base|hybrid|target] (--prompt TEXT… | --prompts FILE) [--out FILE | "
          "--stream]",
      .about =
          "Responses to prompts, as JSON lines in the prompts' order. PATH is a run, checkpoint or export; a run "
          "knows\n"
          "its models, for others a configuration or flags name them. Ranks share the prompts; the output is the same\n"
          "for any number of them.",
      .operands = {},
      .optional_operands = {"PATH"}};
  add_asking_flags(syntax.flags, Edits::kSome);
  auto add = syntax.flags.add_options();
  add("model", po::value<std::string>()->value_name("NAME"),
      "whose responses; default: adapter with PATH, else target");
  add("prompt", po::value<std::vector<std::string>>()->value_name("TEXT")->composing(), "a prompt; may be repeated");
  add("prompts", po::value<std::string>()->value_name("FILE"), "JSONL with \"prompt\" or \"question\"");
  add("out", po::value<std::string>()->value_name("FILE"), "where the lines go; else standard output");
  add("stream", "plain text instead, while it is written; for one prompt and one sample");
  return syntax;
}

ModelKind kind_of_model(const ParsedArguments& arguments, const AskedModels& asked) {
  if (arguments.count("model") == 0) return asked.adapters.path.empty() ? ModelKind::kTarget : ModelKind::kAdapter;
  const ModelKind kind = parse_model_kind(text_of(arguments, "model"));
  if (kind == ModelKind::kAdapter && asked.adapters.path.empty())
    throw ConfigError("--model adapter: name a run, checkpoint or export with the adapters");
  return kind;
}

void require_models(const RunOptions& options, ModelKind kind) {
  if (kind == ModelKind::kTarget) return require_set(options, {"model.target"});
  if (kind == ModelKind::kBase) return require_set(options, {"model.base"});
  require_set(options, {"model.base", "model.target"});
}

std::vector<Question> questions_of(const ParsedArguments& arguments, const Process& process) {
  if ((arguments.count("prompt") > 0) == (arguments.count("prompts") > 0))
    throw ConfigError("generate: expected either --prompt or --prompts");
  if (arguments.count("prompts") > 0)
    return load_questions(process.files, process.current_directory / text_of(arguments, "prompts"), Answers::kIgnored);
  std::vector<Question> questions;
  for (const std::string& text : arguments["prompt"].as<std::vector<std::string>>()) {
    if (text.empty()) throw ConfigError("generate: --prompt is given, but empty");
    questions.push_back(
        {.question = text, .answer = {}, .place = fmt::format("--prompt number {}", questions.size() + 1)});
  }
  return questions;
}

bool streams(const ParsedArguments& arguments, std::size_t prompts, std::int64_t samples) {
  if (arguments.count("stream") == 0) return false;
  if (prompts != 1 || samples != 1 || arguments.count("out") > 0)
    throw ConfigError("--stream: expected one prompt, one sample and no --out, found {} prompts, {} samples{}", prompts,
                      samples, arguments.count("out") > 0 ? " and --out" : "");
  return true;
}

/// A response on standard output as its tokens come, whole characters only.
class TextStream {
 public:
  /// `opening`: what stands before the first token.
  TextStream(const Tokenizer& tokenizer, std::string opening) : tokenizer_(tokenizer), bytes_(std::move(opening)) {}

  void add(std::int32_t token) {
    bytes_ += tokenizer_.token_bytes(token);
    const std::size_t whole = whole_characters();
    std::fwrite(bytes_.data(), 1, whole, stdout);
    std::fflush(stdout);
    bytes_.erase(0, whole);
  }
  void finish() {
    std::fwrite(bytes_.data(), 1, bytes_.size(), stdout);
    std::fputs("\n", stdout);
  }

 private:
  /// All but the beginning of a UTF-8 character at the end.
  std::size_t whole_characters() const {
    for (std::size_t back = 1; back <= std::min<std::size_t>(3, bytes_.size()); ++back) {
      const auto byte = static_cast<unsigned char>(bytes_[bytes_.size() - back]);
      if (byte < 0x80) break;
      if (byte < 0xC0) continue;
      const std::size_t length = byte >= 0xF0 ? 4 : byte >= 0xE0 ? 3 : 2;
      return back < length ? bytes_.size() - back : bytes_.size();
    }
    return bytes_.size();
  }

  const Tokenizer& tokenizer_;
  std::string bytes_;
};

}  // namespace

int generate_command(const Words& words, const Process& process) {
  const auto arguments = parse_arguments(syntax(), words, process);
  if (!arguments) return static_cast<int>(ExitCode::kDone);
  const AskedModels asked = asked_models(*arguments, process);
  const RunOptions& options = asked.options;
  const ModelKind kind = kind_of_model(*arguments, asked);
  require_models(options, kind);
  GenerationOptions generation = generation_options(*arguments);
  const std::int64_t samples = samples_of(*arguments);
  const std::vector<Question> questions = questions_of(*arguments, process);
  const bool is_streamed = streams(*arguments, questions.size(), samples);
  const fs::path out =
      arguments->count("out") > 0 ? process.current_directory / text_of(*arguments, "out") : fs::path();

  const RunSession session(options, process);
  RunEnvironment environment = session.environment();
  // Lines of the log have no place between responses.
  if (out.empty()) environment.print = process.announce;
  const fs::path directory = options.model.target.empty() ? options.model.base : options.model.target;
  std::optional<Tokenizer> tokenizer;
  std::vector<Prompt> prompts;
  agree(environment.world, [&] {
    tokenizer = Tokenizer::load(environment.files, directory);
    prompts = make_prompts(questions, options.corpus.format, *tokenizer);
    require_room(prompts, load_decoder_config(environment.files,
                                              kind == ModelKind::kBase ? options.model.base : options.model.target));
    generation.stop_tokens = stop_tokens(environment.files, directory, *tokenizer);
  });
  ModelSet models(options, asked.adapters, {kind}, environment);
  const GenerationModel model = models.model(kind);
  ResponseJob job{.name = fmt::format("generate: {}", name(kind)),
                  .model = model,
                  .tokenizer = *tokenizer,
                  .prompts = prompts,
                  .samples = samples,
                  .options = generation,
                  .identity = models.identity(kind),
                  .file = out,
                  .progress_seconds = options.log.every_seconds,
                  .stream = {}};
  TextStream text(*tokenizer, prompts.front().opening);
  if (is_streamed) {
    job.stream = [&](std::int32_t token) { text.add(token); };
    environment.print = [](const std::string&) {};  // progress would stand in the middle of the text
  }
  const std::vector<Response> responses = sample_responses(job, environment);
  if (is_streamed && process.session.rank() == 0) text.finish();
  if (!is_streamed && out.empty()) process.print(response_lines(job, responses));
  return static_cast<int>(ExitCode::kDone);
}

}  // namespace tadapt

// `tadapt-dist benchmark`: what base, hybrid, adapter model and target answer to questions.
#include "launcher/asked_models.h"
#include "launcher/commands.h"
#include "launcher/edit_flags.h"
#include "launcher/run_config.h"
#include "launcher/run_session.h"
#include "runtime/eval/benchmark.h"
#include "runtime/train/agreement.h"

namespace tadapt {
namespace {

namespace fs = std::filesystem;
namespace po = boost::program_options;

CommandSyntax syntax() {
  CommandSyntax syntax{
      .usage = "benchmark [PATH] --questions FILE [--samples N] [--out DIR]",
      .about =
          "Base, hybrid, adapter model and target answer questions: accuracy, length, hesitation, degeneration, and "
          "how\n"
          "much of the target's accuracy the adapters recover. PATH is a run, checkpoint or export; without it there "
          "is\n"
          "no adapter row. Responses are kept as JSON lines; an interrupted benchmark goes on when started again.",
      .operands = {},
      .optional_operands = {"PATH"}};
  add_asking_flags(syntax.flags, Edits::kSome);
  auto add = syntax.flags.add_options();
  add("questions", po::value<std::string>()->value_name("FILE"), "JSONL with \"question\" and \"answer\"");
  add("out", po::value<std::string>()->value_name("DIR"),
      "where benchmark.json and responses-MODEL.jsonl go; else benchmark-NAME in the run's folder or the current one");
  return syntax;
}

}  // namespace

int benchmark_command(const Words& words, const Process& process) {
  const auto arguments = parse_arguments(syntax(), words, process);
  if (!arguments) return static_cast<int>(ExitCode::kDone);
  if (arguments->count("questions") == 0) throw ConfigError("benchmark: --questions is not given");
  const AskedModels asked = asked_models(*arguments, process);
  require_set(asked.options, {"model.base", "model.target"});
  const fs::path questions = process.current_directory / text_of(*arguments, "questions");
  const fs::path folder = asked.run.empty() ? process.current_directory : asked.run;
  const fs::path out = arguments->count("out") > 0 ? process.current_directory / text_of(*arguments, "out")
                                                   : folder / fmt::format("benchmark-{}{}", questions.stem().string(),
                                                                          suffix_of(asked.adapters.edit));
  const QuestionRequest request{.options = asked.options,
                                .questions = questions,
                                .samples = samples_of(*arguments),
                                .generation = generation_options(*arguments),
                                .directory = out};
  const RunSession session(asked.options, process);
  const Benchmark benchmark = run_benchmark(request, asked.adapters, session.environment());
  on_rank_zero(session.environment().world, [&] {
    process.print(to_table(benchmark.report));
    write_atomically(process.files, out / "benchmark.json", to_json(benchmark.report, benchmark.subject));
    return std::string();
  });
  return static_cast<int>(ExitCode::kDone);
}

}  // namespace tadapt

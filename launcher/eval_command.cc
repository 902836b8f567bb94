// `tadapt-dist eval`: how close base, hybrid and adapter model come to the target.
#include <functional>

#include "launcher/arguments.h"
#include "launcher/artifact.h"
#include "launcher/commands.h"
#include "launcher/edit_flags.h"
#include "launcher/output_file.h"
#include "launcher/run_config.h"
#include "launcher/run_session.h"
#include "runtime/eval/evaluation.h"
#include "runtime/train/agreement.h"
#include "runtime/train/run_directory.h"

namespace tadapt {
namespace {

namespace fs = std::filesystem;
namespace po = boost::program_options;

constexpr OptionFlag kFlags[] = {{"base", "model.base"},
                                 {"target", "model.target"},
                                 {"corpus", "corpus.validation"},
                                 {"format", "corpus.format"},
                                 {"device", "grid.device"}};

CommandSyntax syntax() {
  CommandSyntax syntax{
      .usage = "eval PATH [--corpus FILE] [--out FILE]",
      .about =
          "Compares base, hybrid, adapter and target on a corpus: token KL, top-1 disagreement, NMSE, L0,\n"
          "dead features. PATH is a run, checkpoint, export or a directory in the authors' layout; a run\n"
          "knows its models and corpus, for others a configuration or flags name them.",
      .operands = {"PATH"}};
  add_option_flags(syntax.flags, kFlags);
  add_edit_flags(syntax.flags);
  auto add = syntax.flags.add_options();
  add("out", po::value<std::string>()->value_name("FILE"),
      "where the JSON goes; else evaluation.json in a run's folder, evaluation-NAME.json for another corpus");
  add("partial", po::value<std::string>()->value_name("all|none")->default_value("all"),
      "whether replacing only layer k, the first k and the last k layers is measured too");
  return syntax;
}

FaithfulnessOptions::Partial partial_of(const ParsedArguments& arguments) {
  const std::string text = text_of(arguments, "partial");
  if (text == "all") return FaithfulnessOptions::Partial::kAll;
  if (text == "none") return FaithfulnessOptions::Partial::kNone;
  throw ConfigError("--partial: expected all or none, found '{}'", text);
}

/// Where the JSON of a run's evaluation goes: its folder, under the name of the corpus when it is not the run's own
/// and of the edit, where there is one.
fs::path output_of(const RunOptions& of_run, const RunOptions& options, const FeatureEdit& edit) {
  const fs::path& corpus = options.corpus.validation;
  const std::string other =
      corpus == of_run.corpus.validation ? std::string() : fmt::format("-{}", corpus.stem().string());
  return of_run.dir / fmt::format("evaluation{}{}.json", other, suffix_of(edit));
}

}  // namespace

int eval_command(const Words& words, const Process& process) {
  const auto arguments = parse_arguments(syntax(), words, process);
  if (!arguments) return static_cast<int>(ExitCode::kDone);
  const FaithfulnessOptions::Partial partial = partial_of(*arguments);
  const fs::path path = process.current_directory / text_of(*arguments, "PATH");
  const FeatureEdit edit = edit_of(*arguments, process);
  RunOptions options;
  fs::path out;
  if (kind_with_adapters(process.files, path) == ArtifactKind::kRun) {
    const RunOptions of_run = options_of_run(process.files, path);
    options = overridden(of_run, *arguments, kFlags, process);
    out = output_of(of_run, options, edit);
  } else {
    options = options_of(*arguments, kFlags, WithoutConfig::kDefaults, process);
  }
  if (arguments->count("out") > 0) out = process.current_directory / text_of(*arguments, "out");
  require_set(options, {"model.base", "model.target", "corpus.validation"});

  const RunSession session(options, process);
  const auto on_first_rank = [&](const std::function<void()>& action) {
    on_rank_zero(session.environment().world, [&] {
      if (!out.empty()) action();
      return std::string();
    });
  };
  on_first_rank([&] { require_writable(process.files, out); });
  const Evaluation evaluation = run_evaluation({.options = options,
                                                .adapters = {.path = path, .edit = edit},
                                                .corpus = options.corpus.validation,
                                                .partial = partial},
                                               session.environment());
  process.print(to_table(evaluation.report));
  on_first_rank([&] { write_atomically(process.files, out, to_json(evaluation)); });
  return static_cast<int>(ExitCode::kDone);
}

}  // namespace tadapt

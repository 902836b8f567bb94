// `tadapt-dist eval`: how close base, hybrid and adapter model come to the target.
#include "launcher/arguments.h"
#include "launcher/artifact.h"
#include "launcher/commands.h"
#include "launcher/run_config.h"
#include "launcher/run_session.h"
#include "runtime/eval/evaluation.h"
#include "runtime/train/agreement.h"
#include "runtime/train/run_directory.h"

namespace tadapt {
namespace {

namespace fs = std::filesystem;
namespace po = boost::program_options;

constexpr OptionFlag kFlags[] = {
    {"base", "model.base"}, {"target", "model.target"}, {"corpus", "corpus.validation"}, {"format", "corpus.format"}};

CommandSyntax syntax() {
  CommandSyntax syntax{
      .usage = "eval PATH [--corpus FILE] [--out FILE]",
      .about =
          "Compares base, hybrid, adapter and target on a corpus: token KL, top-1 disagreement, NMSE, L0,\n"
          "dead features. PATH is a run, checkpoint, export or a directory in the authors' layout; a run\n"
          "knows its models and corpus, for others a configuration or flags name them.",
      .operands = {"PATH"}};
  add_option_flags(syntax.flags, kFlags);
  auto add = syntax.flags.add_options();
  add("out", po::value<std::string>()->value_name("FILE"),
      "where the JSON goes; else evaluation.json in a run's folder");
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

/// Where the JSON goes; empty when nobody said and PATH is no run.
fs::path output_of(const ParsedArguments& arguments, const fs::path& path, const Process& process) {
  if (arguments.count("out") > 0) return process.current_directory / text_of(arguments, "out");
  return kind_of(process.files, path) == ArtifactKind::kRun ? path / "evaluation.json" : fs::path();
}

}  // namespace

int eval_command(const Words& words, const Process& process) {
  const auto arguments = parse_arguments(syntax(), words, process);
  if (!arguments) return static_cast<int>(ExitCode::kDone);
  const FaithfulnessOptions::Partial partial = partial_of(*arguments);
  const fs::path path = process.current_directory / text_of(*arguments, "PATH");
  const RunOptions options = kind_of(process.files, path) == ArtifactKind::kRun
                                 ? overridden(options_of_run(process.files, path), *arguments, kFlags, process)
                                 : options_of(*arguments, kFlags, WithoutConfig::kDefaults, process);
  require_set(options, {"model.base", "model.target", "corpus.validation"});

  const RunSession session(options, process);
  const FaithfulnessReport report =
      run_evaluation({.options = options, .adapters = path, .corpus = options.corpus.validation, .partial = partial},
                     session.environment());
  process.print(to_table(report));
  const fs::path out = output_of(*arguments, path, process);
  on_rank_zero(session.environment().world, [&] {
    if (!out.empty()) write_atomically(process.files, out, to_json(report));
    return std::string();
  });
  return static_cast<int>(ExitCode::kDone);
}

}  // namespace tadapt

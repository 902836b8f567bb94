// `tadapt-dist train`: adapters for every chosen layer, from a configuration or the bundled toy pair.
#include <fmt/format.h>

#include "data/checkpoint.h"
#include "launcher/arguments.h"
#include "launcher/commands.h"
#include "launcher/dry_run.h"
#include "launcher/run_config.h"
#include "launcher/run_session.h"
#include "runtime/train/train_run.h"

namespace tadapt {
namespace {

namespace po = boost::program_options;

constexpr OptionFlag kFlags[] = {
    {"layers", "run.layers"}, {"run", "run.dir"}, {"device", "grid.device"}, {"ranks", "plan.ranks"}};

CommandSyntax syntax() {
  CommandSyntax syntax{
      .usage = "train [--config FILE] [--layers all|0,3,5-8] [--device auto|cpu|cuda[:N]] [--set KEY=VALUE]…",
      .about =
          "Trains an adapter for every chosen layer. The activation cache is captured first when it\n"
          "is not there; a run directory that holds a checkpoint is continued."};
  add_option_flags(syntax.flags, kFlags);
  auto add = syntax.flags.add_options();
  add("resume", po::value<std::string>()->value_name("auto|never")->default_value("auto"),
      "never: an error when the run directory holds a checkpoint");
  add("dry-run", "say grid, steps, memory, disk, what ranks send and how long it takes, and stop");
  add("json", po::value<std::string>()->value_name("FILE"), "with --dry-run: its figures in a file, too");
  add("print-config", "print all options in effect as a configuration, and stop");
  add("print-manual", "print the reference of all options, and stop");
  return syntax;
}

void check_resume(const ParsedArguments& arguments, const RunOptions& options, FileSystem& files) {
  const std::string resume = text_of(arguments, "resume");
  if (resume != "auto" && resume != "never") throw ConfigError("--resume: expected auto or never, found '{}'", resume);
  if (resume == "never" && !list_checkpoints(files, options.dir / "checkpoints").empty())
    throw ConfigError("--resume never: {} holds checkpoints; choose another run.dir", options.dir.string());
}

int train(const RunOptions& options, const Process& process) {
  const RunSession session(options, process);
  const TrainingOutcome outcome = run_training(options, session.environment());
  const std::string facts =
      fmt::format("step={} checkpoint={}", outcome.step, outcome.checkpoint.empty() ? "none" : outcome.checkpoint);
  return outcome.finished ? say_exit(process, ExitCode::kDone, "finished", facts)
                          : say_exit(process, ExitCode::kRequeue, "signal", facts);
}

}  // namespace

int train_command(const Words& words, const Process& process) {
  const auto arguments = parse_arguments(syntax(), words, process);
  if (!arguments) return static_cast<int>(ExitCode::kDone);
  if (arguments->count("print-manual") > 0) {
    process.print(options_manual());
    return static_cast<int>(ExitCode::kDone);
  }
  const RunOptions options = options_of(*arguments, kFlags, WithoutConfig::kToyPair, process);
  if (arguments->count("print-config") > 0) {
    process.print(print_config(options));
    return static_cast<int>(ExitCode::kDone);
  }
  require_set(options, {"model.base", "model.target", "corpus.train"});
  check_resume(*arguments, options, process.files);
  if (arguments->count("dry-run") == 0) return train(options, process);
  const RunSession session(options, process);
  DryRunRecord record;
  dry_run(options, session.environment(), record);
  record.write(path_of(*arguments, "json", process), session.environment());
  return static_cast<int>(ExitCode::kDone);
}

}  // namespace tadapt

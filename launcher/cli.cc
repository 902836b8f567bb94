#include "launcher/cli.h"

#include <algorithm>

#include "kernels/core/error.h"
#include "launcher/nearest.h"
#include "launcher/quoted.h"

namespace tadapt {
namespace {

struct Command {
  const char* name;
  const char* summary;
  int (*run)(const Words&, const Process&);
};

constexpr Command kCommands[] = {
    {"train", "train an adapter for every chosen layer (the default command)", train_command},
    {"capture", "write the activations that training reads", capture_command},
    {"sweep", "train over dictionary sizes, sparsity weights and seeds side by side", sweep_command},
    {"eval", "compare base, hybrid, adapter and target models", eval_command},
    {"generate", "responses of base, hybrid, adapter model or target to prompts", generate_command},
    {"benchmark", "accuracy, length and hesitation of all four on questions", benchmark_command},
    {"features", "what every feature is active on: counts, examples, promoted tokens", features_command},
    {"attribute", "graphs of what made a prompt's next token likely, feature by feature", attribute_command},
    {"select", "features by a rule, as a set that interventions take", select_command},
    {"label", "classes and descriptions of features by a language model, and their scores", label_command},
    {"study", "an experiment of the paper from models to its table", study_command},
    {"report", "runs and sweeps as one HTML page: curves, layers, results, comparison", report_command},
    {"export", "write adapters in forms that others read", export_command},
    {"inspect", "say what a cache, checkpoint, model or run directory holds", inspect_command},
    {"verify", "check every byte of a cache, checkpoint, export or run", verify_command},
    {"salvage", "make a damaged cache whole again, or keep what can be read of it", salvage_command},
    {"init", "write a commented tadapt.yaml for a model pair and a corpus", init_command},
    {"calibrate", "measure where the sparse route stops paying on this machine", calibrate_command},
};

std::string help() {
  std::string text =
      "tadapt-dist: sparse adapters that say what fine-tuning changed in a model\n\n"
      "usage: tadapt-dist [COMMAND] [FLAG…]\n"
      "       mpirun -n RANKS tadapt-dist [COMMAND] [FLAG…]\n\n"
      "commands:\n";
  for (const Command& command : kCommands) text += fmt::format("  {:<9} {}\n", command.name, command.summary);
  text +=
      "\n`tadapt-dist COMMAND --help` shows a command's flags, `tadapt-dist --print-config` every option.\n"
      "exit codes: 0 done, 75 saved on a signal (start again), 78 bad configuration, 66 missing input, 65 bad data,\n"
      "73 cannot write, 3 not finite, 4 a peer failed, 5 a wait was too long, 70 internal";
  return text;
}

}  // namespace

int run_cli(const Words& words, const Process& process) {
  const std::string first = words.empty() ? "" : words.front();
  if (first == "--help" || first == "-h" || first == "--version") {
    process.print(first == "--version" ? "tadapt-dist " TADAPT_VERSION : help());
    return static_cast<int>(ExitCode::kDone);
  }
  if (first.empty() || first.starts_with('-')) return train_command(words, process);
  const auto command = std::ranges::find(kCommands, first, &Command::name);
  if (command == std::end(kCommands)) {
    std::vector<std::string> names;
    for (const Command& known : kCommands) names.emplace_back(known.name);
    throw ConfigError("unknown command {}; did you mean {}?", quoted(first), nearest(first, names));
  }
  return command->run(Words(words.begin() + 1, words.end()), process);
}

}  // namespace tadapt

// `tadapt-dist capture`: the activation cache alone.
#include <fmt/format.h>

#include "launcher/arguments.h"
#include "launcher/commands.h"
#include "launcher/dry_run.h"
#include "launcher/run_config.h"
#include "launcher/run_session.h"
#include "runtime/train/agreement.h"
#include "runtime/train/prepare_cache.h"

namespace tadapt {
namespace {

constexpr OptionFlag kFlags[] = {{"base", "model.base"},
                                 {"target", "model.target"},
                                 {"corpus", "corpus.train"},
                                 {"out", "cache.dir"},
                                 {"layers", "run.layers"},
                                 {"max-tokens", "cache.max_tokens"},
                                 {"tokens-per-sequence", "cache.tokens_per_sequence"},
                                 {"drop-first-positions", "cache.drop_first_positions"},
                                 {"rows", "cache.rows"},
                                 {"device", "grid.device"},
                                 {"ranks", "plan.ranks"}};

}  // namespace

int capture_command(const Words& words, const Process& process) {
  CommandSyntax syntax{
      .usage = "capture --base DIR --target DIR --corpus FILE --out DIR [FLAG…]",
      .about =
          "Runs the target over a corpus and writes, for every chosen layer, what its MLP reads and how\n"
          "its output differs from the base's. An interrupted capture goes on where it was."};
  add_option_flags(syntax.flags, kFlags);
  auto add = syntax.flags.add_options();
  add("dry-run", "say rows, shards, exact bytes and how long it takes, and stop");
  add("json", boost::program_options::value<std::string>()->value_name("FILE"),
      "with --dry-run: its figures in a file, too");
  const auto arguments = parse_arguments(syntax, words, process);
  if (!arguments) return static_cast<int>(ExitCode::kDone);

  const RunOptions options = options_of(*arguments, kFlags, WithoutConfig::kDefaults, process);
  require_set(options, {"model.base", "model.target", "corpus.train"});
  const RunSession session(options, process);
  const RunEnvironment& environment = session.environment();
  CaptureIdentity identity;
  agree(environment.world, [&] { identity = cache_identity(options, environment.files); });
  if (arguments->count("dry-run") > 0) {
    DryRunRecord record;
    dry_run_capture(options, environment, record);
    record.write(path_of(*arguments, "json", process), environment);
    return static_cast<int>(ExitCode::kDone);
  }
  const bool done = prepare_cache(options, environment, identity) == CaptureOutcome::kDone;
  const std::string facts = fmt::format("cache={}", options.cache.dir.string());
  return done ? say_exit(process, ExitCode::kDone, "finished", facts)
              : say_exit(process, ExitCode::kRequeue, "signal", facts);
}

}  // namespace tadapt

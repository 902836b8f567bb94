// `tadapt-dist sweep`: a scaling study, over dictionary sizes, sparsity weights and seeds.
#include <fmt/format.h>

#include <charconv>
#include <sstream>

#include "launcher/arguments.h"
#include "launcher/commands.h"
#include "launcher/dry_run.h"
#include "launcher/quoted.h"
#include "launcher/run_config.h"
#include "launcher/run_session.h"
#include "runtime/sweep/sweep_run.h"

namespace tadapt {
namespace {

namespace fs = std::filesystem;
namespace po = boost::program_options;

constexpr OptionFlag kFlags[] = {
    {"layers", "run.layers"}, {"objective", "train.objective"}, {"device", "grid.device"}, {"ranks", "plan.ranks"}};

CommandSyntax syntax() {
  CommandSyntax syntax{
      .usage = "sweep --dict 512,1024,2048 --l1 1e-4,1e-3,1e-2 [--seeds 3] [--out DIR] [FLAG…]",
      .about =
          "Trains a run for every dictionary size, sparsity weight and seed. Local runs of a seed are trained side\n"
          "by side on one reading of each batch; each comes out as it would alone, in DIR/runs. Finished runs are\n"
          "skipped, interrupted ones go on, further points may be added later. Then sweep.json, sweep.csv and a\n"
          "table: L0, NMSE, token KL, Pareto front, power laws over the dictionary size."};
  add_option_flags(syntax.flags, kFlags);
  auto add = syntax.flags.add_options();
  add("dict", po::value<std::string>()->value_name("F,…"), "dictionary sizes (adapter.features)");
  add("l1", po::value<std::string>()->value_name("W,…"), "sparsity weights (loss.sparsity)");
  add("seeds", po::value<std::string>()->value_name("N")->default_value("1"),
      "seeds: train.seed and the N - 1 after it");
  add("out", po::value<std::string>()->value_name("DIR"), "the study's folder; else run.dir with -sweep behind");
  add("together", po::value<std::string>()->value_name("N")->default_value("0"),
      "runs at a time at most, where memory does not hold all of a seed; 0: all");
  add("evaluate", po::value<std::string>()->value_name("yes|no")->default_value("yes"),
      "compare each finished run's models on corpus.validation");
  add("dry-run", "say runs, grid, steps, memory, disk, what ranks send and how long it takes, and stop");
  add("json", po::value<std::string>()->value_name("FILE"), "with --dry-run: its figures in a file, too");
  return syntax;
}

/// ConfigError naming the flag unless the whole text is one number.
template <class Number>
Number number_of(const std::string& flag, const std::string& text) {
  Number number{};
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, number);
  if (error != std::errc() || stop != end) throw ConfigError("--{}: expected a number, found {}", flag, quoted(text));
  return number;
}

template <class Number>
std::vector<Number> list_of(const ParsedArguments& arguments, const std::string& flag) {
  if (arguments.count(flag) == 0) throw ConfigError("sweep: --{} is missing; see sweep --help", flag);
  std::vector<Number> numbers;
  std::istringstream text(text_of(arguments, flag));
  for (std::string word; std::getline(text, word, ',');) numbers.push_back(number_of<Number>(flag, word));
  return numbers;
}

SweepAxes axes_of(const ParsedArguments& arguments, const RunOptions& options) {
  constexpr std::uint64_t kMostSeeds = 1000;
  const auto count = number_of<std::uint64_t>("seeds", text_of(arguments, "seeds"));
  if (count < 1 || count > kMostSeeds) throw ConfigError("--seeds: expected 1 to {}, found {}", kMostSeeds, count);
  SweepAxes axes{.dictionaries = list_of<std::int64_t>(arguments, "dict"),
                 .sparsities = list_of<double>(arguments, "l1"),
                 .seeds = {}};
  for (std::uint64_t i = 0; i < count; ++i) axes.seeds.push_back(options.train.seed + i);
  return axes;
}

bool evaluates(const ParsedArguments& arguments) {
  const std::string text = text_of(arguments, "evaluate");
  if (text != "yes" && text != "no") throw ConfigError("--evaluate: expected yes or no, found {}", quoted(text));
  return text == "yes";
}

fs::path study_directory(const ParsedArguments& arguments, const RunOptions& options, const Process& process) {
  if (arguments.count("out") > 0) return (process.current_directory / text_of(arguments, "out")).lexically_normal();
  return options.dir.string() + "-sweep";
}

void dry_run(const SweepRequest& request, const RunEnvironment& environment, DryRunRecord& record) {
  Study study(request.options, request.directory, request.points, environment);
  const std::vector<Cohort> cohorts = next_cohorts(request, study);
  environment.print(fmt::format("sweep: {}: {} runs, trained in {} groups", request.directory.string(),
                                study.points().size(), cohorts.size()));
  for (const Cohort& cohort : cohorts) {
    std::string names;
    std::vector<const RunOptions*> runs;
    for (const PlannedRun& run : cohort) {
      names += fmt::format(" {}", run.options.dir.filename().string());
      runs.push_back(&run.options);
    }
    environment.print(fmt::format("sweep: from step {}:{}", cohort.front().before.step, names));
    runs.size() == 1 ? dry_run(*runs.front(), environment, record) : dry_run_side_by_side(runs, environment, record);
  }
}

}  // namespace

int sweep_command(const Words& words, const Process& process) {
  const auto arguments = parse_arguments(syntax(), words, process);
  if (!arguments) return static_cast<int>(ExitCode::kDone);
  RunOptions options = options_of(*arguments, kFlags, WithoutConfig::kToyPair, process);
  require_set(options, {"model.base", "model.target", "corpus.train"});
  // A cache inside the run's own folder is nobody's wish: the study has one for all.
  if (options.cache.dir == options.dir / "cache") options.cache.dir.clear();
  const SweepRequest request{.options = options,
                             .directory = study_directory(*arguments, options, process),
                             .points = points_of(axes_of(*arguments, options)),
                             .together = number_of<std::size_t>("together", text_of(*arguments, "together")),
                             .evaluates = evaluates(*arguments)};
  if (request.evaluates) require_set(options, {"corpus.validation"});
  const RunSession session(options, process);
  if (arguments->count("dry-run") > 0) {
    DryRunRecord record;
    dry_run(request, session.environment(), record);
    record.write(path_of(*arguments, "json", process), session.environment());
    return static_cast<int>(ExitCode::kDone);
  }
  const SweepOutcome outcome = run_sweep(request, session.environment());
  session.environment().print(outcome.table);
  const std::string facts = fmt::format("runs={} failed={} of={} sweep={}", outcome.done, outcome.failed, outcome.all,
                                        (request.directory / kStudyFile).string());
  return outcome.finished ? say_exit(process, ExitCode::kDone, "finished", facts)
                          : say_exit(process, ExitCode::kRequeue, "signal", facts);
}

}  // namespace tadapt

// `tadapt-dist features`: what every feature of the adapters is active on.
#include "launcher/arguments.h"
#include "launcher/commands.h"
#include "launcher/run_config.h"
#include "launcher/run_session.h"
#include "runtime/analysis/feature_run.h"

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
      .usage = "features --run PATH --corpus FILE --out DIR [FLAG…]",
      .about =
          "Runs the adapter model over a corpus and writes, for every feature, how often, where and on which\n"
          "examples it is active, and which tokens it promotes. PATH is a run, checkpoint or export. Conversations\n"
          "without <think> … </think> are left out. An interrupted collection goes on when started again.\n"
          "`tadapt-dist features report` then makes a site of it."};
  add_option_flags(syntax.flags, kFlags);
  auto add = syntax.flags.add_options();
  const auto text = [](const char* name, const char* otherwise) {
    return po::value<std::string>()->value_name(name)->default_value(otherwise);
  };
  add("run", po::value<std::string>()->value_name("PATH"), "a run, checkpoint, export or the authors' layout");
  add("out", po::value<std::string>()->value_name("DIR"), "where the feature store goes");
  add("top", text("N", "20"), "examples of each feature with the largest activations");
  add("sampled", text("N", "10"), "examples of each feature drawn uniformly");
  add("contrast", text("N", "256"),
      "texts of the corpus, drawn uniformly, of which is kept which features are active: `label` finds texts in them "
      "where a feature is silent");
  add("seed", text("N", "0"), "of these draws");
  add("neurons", text("N", "0"), "so many neurons of every MLP of base and target too, as a baseline");
  add("neuron-rule", text("positive|absolute", "positive"),
      "what counts as a neuron's activation: its value where above 0, or its absolute value");
  add("export", po::value<std::string>()->value_name("FORMAT"),
      "circuit-tracer: packed feature files; circuit-tracer-json: one file a feature; both in DIR/circuit-tracer");
  add("batch-tokens", text("N", "4096"), "run together; changes no result");
  add("save-seconds", text("N", "600"), "between saves of what was collected so far");
  add("dry-run", "say what would be done, its work, memory and disk, and stop");
  return syntax;
}

NeuronRule neuron_rule(const std::string& text) {
  if (text == "positive") return NeuronRule::kPositive;
  if (text == "absolute") return NeuronRule::kAbsolute;
  throw ConfigError("--neuron-rule: expected positive or absolute, found '{}'", text);
}

std::optional<CircuitTracerFiles> export_format(const std::string& text) {
  if (text.empty()) return std::nullopt;
  if (text == "circuit-tracer") return CircuitTracerFiles::kPacked;
  if (text == "circuit-tracer-json") return CircuitTracerFiles::kJson;
  throw ConfigError("--export: expected circuit-tracer or circuit-tracer-json, found '{}'", text);
}

}  // namespace

int features_command(const Words& words, const Process& process) {
  if (!words.empty() && words.front() == "report")
    return features_report_command(Words(words.begin() + 1, words.end()), process);
  const auto arguments = parse_arguments(syntax(), words, process);
  if (!arguments) return static_cast<int>(ExitCode::kDone);
  for (const char* flag : {"run", "out"})
    if (arguments->count(flag) == 0) throw ConfigError("features: --{} is not given", flag);
  const fs::path path = process.current_directory / text_of(*arguments, "run");
  const RunOptions options = options_for_adapters(path, *arguments, kFlags, process);
  require_set(options, {"model.base", "model.target", "corpus.validation"});
  constexpr std::int64_t kMost = std::int64_t{1} << 53;
  const FeatureRequest request{
      .options = options,
      .adapters = path,
      .corpus = options.corpus.validation,
      .out = process.current_directory / text_of(*arguments, "out"),
      .records = {.seed = static_cast<std::uint64_t>(number_of<std::int64_t>(*arguments, "seed", 0, kMost)),
                  .top = static_cast<int>(number_of<std::int64_t>(*arguments, "top", 1, 1000)),
                  .sampled = static_cast<int>(number_of<std::int64_t>(*arguments, "sampled", 0, 1000)),
                  .contrast =
                      static_cast<int>(number_of<std::int64_t>(*arguments, "contrast", 0, kMostContrastWindows))},
      .neurons = number_of<std::int64_t>(*arguments, "neurons", 0, 1 << 20),
      .neuron_rule = neuron_rule(text_of(*arguments, "neuron-rule")),
      .circuit_tracer = export_format(text_of(*arguments, "export")),
      .batch_tokens = number_of<std::int64_t>(*arguments, "batch-tokens", 1, 1 << 20),
      .save_seconds = static_cast<double>(number_of<std::int64_t>(*arguments, "save-seconds", 1, 1 << 20))};
  const RunSession session(options, process);
  if (arguments->count("dry-run") > 0) {
    describe_features(request, session.environment());
    return static_cast<int>(ExitCode::kDone);
  }
  const bool done = collect_features(request, session.environment()) == FeatureOutcome::kDone;
  const std::string facts = fmt::format("features={}", request.out.string());
  return done ? say_exit(process, ExitCode::kDone, "finished", facts)
              : say_exit(process, ExitCode::kRequeue, "signal", facts);
}

}  // namespace tadapt

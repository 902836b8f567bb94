// `tadapt-dist attribute`: attribution graphs of prompts.
#include "launcher/arguments.h"
#include "launcher/commands.h"
#include "launcher/run_config.h"
#include "launcher/run_session.h"
#include "runtime/analysis/attribution_run.h"

namespace tadapt {
namespace {

namespace fs = std::filesystem;
namespace po = boost::program_options;

constexpr OptionFlag kFlags[] = {
    {"base", "model.base"}, {"target", "model.target"}, {"format", "corpus.format"}, {"device", "grid.device"}};

CommandSyntax syntax() {
  CommandSyntax syntax{
      .usage = "attribute --run PATH --prompts FILE|DIR --out DIR",
      .about =
          "Which features and tokens made the next token of each prompt likely, and by way of which features: a graph "
          "as\n"
          "JSON that circuit-tracer reads, and as a page. PATH is a run, checkpoint, export or a directory in the "
          "authors'\n"
          "layout; a run knows its models, for others a configuration or flags name them. Prompts are .txt files, "
          "whose last\n"
          "token is what comes next, and .jsonl files with \"prompt\" or \"question\". Ranks share the prompts; an "
          "interrupted\n"
          "command goes on when started again. It computes in float32.",
      .operands = {}};
  add_option_flags(syntax.flags, kFlags);
  auto add = syntax.flags.add_options();
  const auto text = [](const char* what) { return po::value<std::string>()->value_name(what); };
  const auto number = [](const char* otherwise) {
    return po::value<std::string>()->value_name("N")->default_value(otherwise);
  };
  add("run", text("PATH"), "the adapters");
  add("prompts", text("PATH"), "a .txt or .jsonl file, or a folder of them");
  add("out", text("DIR"), "where graphs and pages go");
  add("max-nodes", number("10000"), "features of a graph, before pruning");
  add("batch", number("128"), "targets that go back through the model at once");
  add("logits", number("10"), "most predictions that a graph explains");
  add("logit-mass", number("0.95"), "or fewer, when these together are so probable");
  add("node-share", number("0.8"), "of all influence that the kept nodes have");
  add("edge-share", number("0.98"), "of all scores that the kept edges have");
  add("maps-gib", number("4"), "GiB for MLPs as matrices, a position each, where that is faster");
  add("memory-gib", number("0"), "GiB that a rank may use; 0: its share of the host's memory");
  add("feature-url", text("URL"), "pages link features to it; {layer}, {feature} and {index} in it are replaced");
  return syntax;
}

std::string needed(const ParsedArguments& arguments, const char* flag) {
  if (arguments.count(flag) == 0) throw ConfigError("attribute: --{} is not given", flag);
  return text_of(arguments, flag);
}

}  // namespace

int attribute_command(const Words& words, const Process& process) {
  const auto arguments = parse_arguments(syntax(), words, process);
  if (!arguments) return static_cast<int>(ExitCode::kDone);
  const fs::path adapters = process.current_directory / needed(*arguments, "run");
  const fs::path prompts = process.current_directory / needed(*arguments, "prompts");
  const fs::path out = process.current_directory / needed(*arguments, "out");
  const auto gib = [&](const char* flag) {
    return static_cast<std::int64_t>(number_of<double>(*arguments, flag, 0.0, 1e6) * 0x1p30);
  };
  const GrowthOptions growth{.logits = {.most = number_of<int>(*arguments, "logits", 1, 1000),
                                        .mass = number_of<double>(*arguments, "logit-mass", 1e-6, 1.0)},
                             .most_features = number_of<std::int64_t>(*arguments, "max-nodes", 1, 1 << 30),
                             .batch = number_of<int>(*arguments, "batch", 1, 65536),
                             .most_map_bytes = gib("maps-gib")};
  const PruningShares pruning{.nodes = number_of<double>(*arguments, "node-share", 0.0, 1.0),
                              .edges = number_of<double>(*arguments, "edge-share", 0.0, 1.0)};
  const RunOptions options = options_for_adapters(adapters, *arguments, kFlags, process);
  require_set(options, {"model.base", "model.target"});
  const RunSession session(options, process);
  run_attribution({.options = options,
                   .adapters = adapters,
                   .prompts = prompts,
                   .directory = out,
                   .growth = growth,
                   .pruning = pruning,
                   .most_bytes = gib("memory-gib"),
                   .feature_url = text_of(*arguments, "feature-url")},
                  session.environment());
  return static_cast<int>(ExitCode::kDone);
}

}  // namespace tadapt

// `tadapt-dist select`: features by a rule, as a set that interventions take.
#include "launcher/arguments.h"
#include "launcher/commands.h"
#include "launcher/output_file.h"
#include "runtime/analysis/feature_rule.h"

namespace tadapt {
namespace {

namespace fs = std::filesystem;
namespace po = boost::program_options;

CommandSyntax syntax() {
  CommandSyntax syntax{
      .usage = "select FEATURES RULE [--out FILE] [--name NAME]",
      .about =
          "Chooses features of a folder that `tadapt-dist features` has written, and prints how many of each layer.\n"
          "RULE joins with | (either), & (both), - (not the other) and brackets:\n"
          "  promotes(WORD…, top=K)  one of the words is among the K tokens that the feature promotes most\n"
          "  template(share=0.8)     that share of the top examples stands at a position of the template\n"
          "  region(NAME, share=0.5), domain(NAME, share=0.5)  that share of the activations is there\n"
          "  active(from=0, to=1)    the share of tokens on which it is active\n"
          "  class(CLASS…, labels=FILE)  a judge put it there: language, reasoning, reasoning/hesitation, …\n"
          "  influence(WORD…, graphs=DIR, share=0.01)  it has that share of the influence of all features on these\n"
          "                          words as next tokens, in the graphs that `tadapt-dist attribute` wrote\n"
          "  set(FILE)               a saved set\n"
          "  control(RULE, seed=0, times=1)  live features that the rule leaves out, as many of each layer\n"
          "  hesitation-output, hesitation-template, hesitation  the paper's rules\n",
      .operands = {"FEATURES", "RULE"}};
  auto add = syntax.flags.add_options();
  add("out", po::value<std::string>()->value_name("FILE"), "where the set goes; else it is only counted");
  add("name", po::value<std::string>()->value_name("NAME"), "of the set; default: the file's");
  return syntax;
}

std::string share_text(std::int64_t part, std::int64_t whole) {
  return fmt::format("{} of {} ({:.2f} %)", part, whole,
                     100.0 * static_cast<double>(part) / static_cast<double>(whole));
}

std::string count_of(const Selection& selection, const FeatureStore& store) {
  std::int64_t all = 0;
  std::string layers;
  for (const int layer : store.layers()) {
    const auto ids = selection.set.features.find(layer);
    layers += fmt::format(
        "  layer {:>3}: {}\n", layer,
        share_text(ids == selection.set.features.end() ? 0 : std::ssize(ids->second), store.features(layer)));
    all += store.features(layer);
  }
  return fmt::format("{}: {} features, {} of them live, {:.2f} active per token\n{}", selection.set.rule,
                     share_text(selection.set.size(), all), selection.live, selection.active_per_token, layers);
}

constexpr int kTops[] = {1, 2, 3, 5, 10};

/// How the count depends on the number of promoted tokens looked at.
std::string sensitivity(std::span<const Selection> by_top) {
  std::string text = "by the number of promoted tokens looked at:";
  for (std::size_t i = 0; i < by_top.size(); ++i) text += fmt::format(" {}: {},", kTops[i], by_top[i].set.size());
  text.back() = '\n';
  return text;
}

}  // namespace

int select_command(const Words& words, const Process& process) {
  const auto arguments = parse_arguments(syntax(), words, process);
  if (!arguments || process.session.rank() != 0) return static_cast<int>(ExitCode::kDone);
  const FeatureStore store(process.files, process.current_directory / text_of(*arguments, "FEATURES"));
  const std::string rule = text_of(*arguments, "RULE");
  const fs::path out = text_of(*arguments, "out");
  const std::string name = arguments->count("name") > 0 ? text_of(*arguments, "name")
                           : out.empty()                ? rule
                                                        : out.stem().string();
  if (!out.empty()) require_writable(process.files, process.current_directory / out);
  std::vector<NamedRule> rules{{.name = name, .rule = rule}};
  for (const int top : kTops) rules.push_back({.name = {}, .rule = rule, .promoted_tokens = top});
  const RuleSubject subject{store, process.files, process.current_directory};
  const bool looks_at_promoted =
      parse_feature_rule(rules[1], subject).text != parse_feature_rule(rules[2], subject).text;
  if (!looks_at_promoted) rules.resize(1);
  const std::vector<Selection> found = select_features(rules, subject);
  process.print(count_of(found.front(), store));
  if (looks_at_promoted) process.print(sensitivity(std::span(found).subspan(1)));
  if (!out.empty()) write_feature_set(process.files, process.current_directory / out, found.front().set);
  return static_cast<int>(ExitCode::kDone);
}

}  // namespace tadapt

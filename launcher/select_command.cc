// `tadapt-dist select`: features by a rule, as a set that interventions take.
#include <cmath>

#include "launcher/arguments.h"
#include "launcher/commands.h"
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
          "  set(FILE)               a saved set\n"
          "  control(RULE, seed=0, times=1)  live features that the rule leaves out, as many of each layer\n"
          "hesitation-output, hesitation-template and hesitation stand for the paper's rules.",
      .operands = {"FEATURES", "RULE"}};
  auto add = syntax.flags.add_options();
  add("out", po::value<std::string>()->value_name("FILE"), "where the set goes; else it is only counted");
  add("name", po::value<std::string>()->value_name("NAME"), "of the set; default: the file's");
  return syntax;
}

std::string written_out(const std::string& rule) {
  if (rule == "hesitation-output") return kHesitationOutput;
  if (rule == "hesitation-template") return kHesitationTemplate;
  if (rule == "hesitation") return kHesitation;
  return rule;
}

std::int64_t features_of(const FeatureStore& store) {
  std::int64_t all = 0;
  for (const int layer : store.layers()) all += store.features(layer);
  return all;
}

std::string count_of(const FeatureSet& set, const FeatureStore& store) {
  std::string text = fmt::format("{} of {} features ({:.2f} %)\n", set.size(), features_of(store),
                                 100.0 * static_cast<double>(set.size()) / static_cast<double>(features_of(store)));
  for (const int layer : store.layers()) {
    const auto ids = set.features.find(layer);
    text += fmt::format("  layer {:>3}: {:>7} of {}\n", layer, ids == set.features.end() ? 0 : ids->second.size(),
                        store.features(layer));
  }
  return text;
}

/// How the count depends on the number of promoted tokens looked at, where the rule looks at them.
std::string sensitivity(const std::string& rule, const RuleSubject& subject) {
  const std::string call = "promotes(";
  if (rule.find(call) == rule.npos || rule.find("top=") != rule.npos) return {};
  std::string text = "by the number of promoted tokens looked at:";
  for (const int top : {1, 2, 3, 5, 10}) {
    std::string other;
    std::size_t at = 0;
    for (std::size_t begin; (begin = rule.find(call, at)) != rule.npos;) {
      const std::size_t end = rule.find(')', begin);
      if (end == rule.npos) return {};
      other += rule.substr(at, end - at) + fmt::format(", top={}", top);
      at = end;
    }
    other += rule.substr(at);
    text += fmt::format(" {}: {}{}", top, select_features(other, "", subject).size(), top == 10 ? "\n" : ",");
  }
  return text;
}

}  // namespace

int select_command(const Words& words, const Process& process) {
  const auto arguments = parse_arguments(syntax(), words, process);
  if (!arguments || process.session.rank() != 0) return static_cast<int>(ExitCode::kDone);
  const FeatureStore store(process.files, process.current_directory / text_of(*arguments, "FEATURES"));
  const std::string rule = written_out(text_of(*arguments, "RULE"));
  const fs::path out = text_of(*arguments, "out");
  const std::string name = arguments->count("name") > 0 ? text_of(*arguments, "name")
                           : out.empty()                ? rule
                                                        : out.stem().string();
  const RuleSubject subject{store, process.files, process.current_directory};
  const FeatureSet set = select_features(rule, name, subject);
  process.print(fmt::format("{}: {}{}", rule, count_of(set, store), sensitivity(rule, subject)));
  if (!out.empty()) write_feature_set(process.files, process.current_directory / out, set);
  return static_cast<int>(ExitCode::kDone);
}

}  // namespace tadapt

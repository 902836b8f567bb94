#include "runtime/analysis/hesitation_sets.h"

#include <algorithm>
#include <limits>

namespace tadapt {
namespace {

namespace fs = std::filesystem;

std::string control_name(double times) { return fmt::format("control-{:g}", times); }

/// How many times a set may be drawn, layer by layer, from the features that `others` has.
double most_times(const FeatureSet& set, const FeatureSet& others) {
  double most = std::numeric_limits<double>::infinity();
  for (const auto& [layer, ids] : set.features) {
    const auto found = others.features.find(layer);
    const std::size_t there = found == others.features.end() ? 0 : found->second.size();
    most = std::min(most, static_cast<double>(there) / static_cast<double>(ids.size()));
  }
  return most;
}

std::vector<RuleSensitivity> sensitivity_of(const HesitationRules& rules, const RuleSubject& subject) {
  constexpr int kTops[] = {1, 2, 3, 5, 10};
  constexpr double kShares[] = {0.5, 0.6, 0.7, 0.8, 0.9, 1.0};
  std::vector<NamedRule> asked;
  for (const int top : kTops) asked.push_back({.name = {}, .rule = rules.output, .promoted_tokens = top});
  const bool shares = rules.template_rule == kHesitationTemplate;
  if (shares)
    for (const double share : kShares) asked.push_back({.name = {}, .rule = fmt::format("template(share={})", share)});
  const std::vector<Selection> found = select_features(asked, subject);
  RuleSensitivity by_top{"output, by the number of promoted tokens looked at", {}},
      by_share{"template, by the share of top examples", {}};
  std::size_t next = 0;
  for (const int top : kTops) by_top.counts.emplace_back(top, found[next++].set.size());
  if (!shares) return {by_top};
  for (const double share : kShares) by_share.counts.emplace_back(share, found[next++].set.size());
  return {by_top, by_share};
}

}  // namespace

std::vector<const HesitationSet*> HesitationSets::all() const {
  std::vector<const HesitationSet*> sets{&output, &template_set, &both};
  for (const HesitationSet& control : controls) sets.push_back(&control);
  return sets;
}

HesitationSets select_hesitation(const HesitationRules& rules, const RuleSubject& subject, const fs::path& folder,
                                 const std::function<void(const std::string&)>& note) {
  const std::string both = rules.both();
  const std::vector<Selection> sizes = select_features({{.name = "both", .rule = both},
                                                        {.name = "others", .rule = "active() - (" + both + ")"},
                                                        {.name = "live", .rule = "active()"}},
                                                       subject);
  const FeatureSet& meant = sizes[0].set;
  if (meant.size() == 0)
    throw ConfigError("{}: no feature is meant by {}", subject.store.directory().string(), meant.rule);
  const double most = most_times(meant, sizes[1].set);
  std::vector<NamedRule> asked{{.name = "output", .rule = rules.output},
                               {.name = "template", .rule = rules.template_rule},
                               {.name = "both", .rule = both}};
  for (const double times : rules.control_times) {
    if (times <= most)
      asked.push_back({.name = control_name(times),
                       .rule = fmt::format("control({}, seed={}, times={})", both, rules.control_seed, times)});
    else
      note(fmt::format("{} is left out: in some layer there are only {:.2f} times as many live features beside the set",
                       control_name(times), most));
  }
  std::vector<HesitationSet> sets;
  for (Selection& selection : select_features(asked, subject)) {
    const fs::path file = folder / (selection.set.name + ".json");
    sets.push_back({{file.string(), std::move(selection.set)}, selection.live, selection.active_per_token});
  }
  HesitationSets found{.output = sets[0],
                       .template_set = sets[1],
                       .both = sets[2],
                       .controls = {sets.begin() + 3, sets.end()},
                       .live_features = sizes[2].live,
                       .sensitivity = sensitivity_of(rules, subject)};
  for (const int layer : subject.store.layers()) found.all_features += subject.store.features(layer);
  return found;
}

void write(const HesitationSets& sets, FileSystem& files) {
  for (const HesitationSet* set : sets.all()) {
    files.make_directories(fs::path(set->named.file).parent_path());
    write_feature_set(files, set->named.file, set->named.set);
  }
}

}  // namespace tadapt

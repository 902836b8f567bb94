// HesitationSets: the features of hesitation by the rules of a study, and random controls beside them.
#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "runtime/analysis/feature_rule.h"
#include "runtime/bundle/feature_edit.h"

namespace tadapt {

/// Which features are meant, and what stands beside them.
struct HesitationRules {
  std::string output = kHesitationOutput;
  std::string template_rule = kHesitationTemplate;
  std::vector<double> control_times{0.5, 1.0, 2.0, 4.0};  ///< sizes of the controls, in sizes of both sets together
  std::uint64_t control_seed = 0;

  /// The features of either rule.
  std::string both() const { return "(" + output + ") | (" + template_rule + ")"; }
};

struct HesitationSet {
  NamedFeatureSet named;
  std::int64_t live = 0;
  double active_per_token = 0.0;
};

/// How many features a rule means when a number in it is another.
struct RuleSensitivity {
  std::string rule;
  std::vector<std::pair<double, std::int64_t>> counts;  ///< (number, features)
};

struct HesitationSets {
  HesitationSet output, template_set, both;
  std::vector<HesitationSet> controls;
  std::int64_t all_features = 0, live_features = 0;
  std::vector<RuleSensitivity> sensitivity;

  /// In the order of a study: output, template, both, controls.
  std::vector<const HesitationSet*> all() const;
};

/// Sets with files named folder/NAME.json; nothing is written. A control that is larger than what the live features of
/// a layer allow is left out, with a line for `note`. ConfigError when no feature is in a set; the errors of
/// select_features.
HesitationSets select_hesitation(const HesitationRules& rules, const RuleSubject& subject,
                                 const std::filesystem::path& folder,
                                 const std::function<void(const std::string&)>& note);
/// Writes their files.
void write(const HesitationSets& sets, FileSystem& files);

}  // namespace tadapt

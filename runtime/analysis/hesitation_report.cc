#include "runtime/analysis/hesitation_report.h"

#include <cmath>

namespace tadapt {
namespace {

using Json = nlohmann::ordered_json;

constexpr double kAtLeast = 0.7;             ///< of the hesitation rate that removing both sets cuts
constexpr double kControlShare = 1.0 / 3.0;  ///< of that, which a control stays under

struct Column {
  ResponseMetric metric;
  const char *title, *pattern;
  double scale;
};
constexpr Column kColumns[] = {{ResponseMetric::kAccuracy, "accuracy, %", "{:.1f}", 100.0},
                               {ResponseMetric::kMeanTokens, "tokens", "{:.1f}", 1.0},
                               {ResponseMetric::kWaitRate, "wait / 1k", "{:.2f}", 1.0},
                               {ResponseMetric::kHesitationRate, "hesitation / 1k", "{:.2f}", 1.0},
                               {ResponseMetric::kDegenerateShare, "degenerate, %", "{:.1f}", 100.0}};

std::string with_interval(const Estimate& estimate, const char* pattern, double scale) {
  if (std::isnan(estimate.value)) return "–";
  const auto number = [&](double value) { return fmt::format(fmt::runtime(pattern), scale * value); };
  return fmt::format("{} [{}, {}]", number(estimate.value), number(estimate.low), number(estimate.high));
}

std::string percent(const Estimate& share) {
  return std::isnan(share.value) ? "–" : fmt::format("{} %", with_interval(share, "{:+.1f}", 100.0));
}

std::string probability(double p) { return p < 0.001 ? "p < 0.001" : fmt::format("p {:.3f}", p); }

const Estimate& change(const StudyRow& row, ResponseMetric metric) { return row.of(metric).relative_change; }

/// A control's change beside what the set does.
StudyClaim control_claim(const std::string& text, const Estimate& of_control, const Estimate& of_set) {
  return {text, fmt::format("{} against {}", percent(of_control), percent(of_set)),
          std::abs(of_control.value) < kControlShare * std::abs(of_set.value)};
}

void add_control_claims(std::vector<StudyClaim>& claims, const HesitationStudy& study) {
  const StudyRow *both = study.find("adapter-without-both"), *control = study.find("adapter-without-control-1"),
                 *added = study.find("hybrid-with-both"), *added_control = study.find("hybrid-with-control-1");
  if (control == nullptr) return;
  for (const auto& [metric, what] : {std::pair(ResponseMetric::kHesitationRate, "the hesitation rate"),
                                     std::pair(ResponseMetric::kMeanTokens, "the length")})
    claims.push_back(control_claim(
        fmt::format("removing as many random features changes {} by less than a third of what both sets do", what),
        change(*control, metric), change(*both, metric)));
  const Estimate &gained = added->of(ResponseMetric::kHesitationRate).difference,
                 &by_control = added_control->of(ResponseMetric::kHesitationRate).difference;
  claims.push_back({"alone on the hybrid, both sets bring back more hesitation than as many random features",
                    fmt::format("{} against {} per 1,000 tokens", with_interval(gained, "{:+.2f}", 1.0),
                                with_interval(by_control, "{:+.2f}", 1.0)),
                    gained.low > by_control.high});
  const StudyRow *taken = study.find("target-less-both"), *taken_control = study.find("target-less-control-1");
  const Estimate &cut = change(*taken, ResponseMetric::kHesitationRate),
                 &control_cut = change(*taken_control, ResponseMetric::kHesitationRate);
  claims.push_back(
      {"taken from the target by half, both sets cut its hesitation rate, more than as many random features",
       fmt::format("{} against {}", percent(cut), percent(control_cut)), cut.high < 0.0 && cut.high < control_cut.low});
}

std::string share_of(std::int64_t count, std::int64_t whole) {
  return fmt::format("{} ({:.2f} %)", count, 100.0 * static_cast<double>(count) / static_cast<double>(whole));
}

std::string sets_table(const HesitationSets& sets) {
  std::string text =
      fmt::format("{} features, {} of them active somewhere in the corpus.\n\n", sets.all_features, sets.live_features);
  text += "| set | features (of all) | live | active per token | rule |\n|---|---|---|---|---|\n";
  for (const HesitationSet* set : sets.all()) {
    std::string rule;
    for (const char sign : set->named.set.rule) {
      if (sign == '|') rule += '\\';
      rule += sign;
    }
    text += fmt::format("| {} | {} | {} | {:.2f} | `{}` |\n", set->named.set.name,
                        share_of(set->named.set.size(), sets.all_features), set->live, set->active_per_token, rule);
  }
  text += "\n";
  for (const RuleSensitivity& sensitivity : sets.sensitivity) {
    text += sensitivity.rule + ":";
    for (const auto& [number, count] : sensitivity.counts) text += fmt::format(" {}: {};", number, count);
    text.back() = '\n';
  }
  return text;
}

std::string rows_table(const HesitationStudy& study) {
  std::string text = "| model | features |", line = "|---|---|";
  for (const Column& column : kColumns) {
    text += fmt::format(" {} |", column.title);
    line += "---|";
  }
  text += " hesitation, change | length, change | accuracy, difference |\n" + line + "---|---|---|\n";
  for (const StudyRow& row : study.rows) {
    text += fmt::format("| {} | {} |", row.name, row.set.empty() ? "" : std::to_string(row.features));
    for (const Column& column : kColumns)
      text += fmt::format(" {} |", with_interval(row.of(column.metric).value, column.pattern, column.scale));
    if (row.name == row.against) {
      text += " – | – | – |\n";
      continue;
    }
    for (const ResponseMetric metric : {ResponseMetric::kHesitationRate, ResponseMetric::kMeanTokens})
      text += fmt::format(" {}, {} |", percent(change(row, metric)), probability(row.of(metric).p));
    const PairedScore& accuracy = row.of(ResponseMetric::kAccuracy);
    text += fmt::format(" {}, {} |\n", with_interval(accuracy.difference, "{:+.1f}", 100.0), probability(accuracy.p));
  }
  return text;
}

}  // namespace

std::vector<StudyClaim> claims_of(const HesitationStudy& study) {
  std::vector<StudyClaim> claims;
  for (const auto& [row, what] : {std::pair(study.find("adapter-without-both"), "both sets"),
                                  std::pair(study.find("adapter-without-output"), "the output set alone")}) {
    const Estimate &rate = change(*row, ResponseMetric::kHesitationRate),
                   &length = change(*row, ResponseMetric::kMeanTokens),
                   &accuracy = row->of(ResponseMetric::kAccuracy).difference;
    claims.push_back({fmt::format("removing {} cuts the hesitation rate by at least 70 %", what), percent(rate),
                      rate.value <= -kAtLeast});
    claims.push_back({fmt::format("removing {} shortens responses", what), percent(length), length.high < 0.0});
    claims.push_back({fmt::format("removing {} leaves accuracy as it is (its difference's interval holds 0)", what),
                      fmt::format("{} points", with_interval(accuracy, "{:+.1f}", 100.0)),
                      accuracy.low <= 0.0 && accuracy.high >= 0.0});
  }
  add_control_claims(claims, study);
  return claims;
}

std::string to_markdown(const HesitationStudy& study) {
  std::string text = sets_table(study.sets) + "\n" + rows_table(study) +
                     "\nChanges are against the model that a row's name begins with (adapter and hybrid: against the "
                     "target); intervals of 95 %, paired over questions.\n\n| claim | found | |\n|---|---|---|\n";
  for (const StudyClaim& claim : claims_of(study))
    text += fmt::format("| {} | {} | {} |\n", claim.text, claim.found, claim.holds ? "holds" : "does not hold");
  return text;
}

std::string to_csv(const HesitationStudy& study) {
  std::string text =
      "model,part,against,set,features,active_per_token,metric,value,low,high,difference,difference_low,"
      "difference_high,relative_change,relative_low,relative_high,p\n";
  const auto numbers = [](const Estimate& estimate) {
    return std::isnan(estimate.value) ? std::string(",,")
                                      : fmt::format("{},{},{}", estimate.value, estimate.low, estimate.high);
  };
  for (const StudyRow& row : study.rows)
    for (const ResponseMetric metric : kResponseMetrics) {
      const PairedScore& score = row.of(metric);
      text += fmt::format("{},{},{},{},{},{},{},{},{},{},{}\n", row.name, row.part, row.against, row.set, row.features,
                          row.active_per_token, name(metric), numbers(score.value), numbers(score.difference),
                          numbers(score.relative_change), score.p);
    }
  return text;
}

Json to_json(const HesitationStudy& study) {
  Json object = {{"study", "hesitation"}, {"questions", study.questions}}, rows = Json::array(), claims = Json::array(),
       sets = Json::array(), sensitivities = Json::array();
  object.update(study.subject);
  for (const HesitationSet* set : study.sets.all())
    sets.push_back({{"name", set->named.set.name},
                    {"rule", set->named.set.rule},
                    {"features", set->named.set.size()},
                    {"live", set->live},
                    {"active_per_token", set->active_per_token}});
  for (const RuleSensitivity& sensitivity : study.sets.sensitivity)
    sensitivities.push_back({{"rule", sensitivity.rule}, {"counts", sensitivity.counts}});
  for (const StudyRow& row : study.rows) {
    Json entry = {{"model", row.name}, {"part", row.part},         {"against", row.against},
                  {"set", row.set},    {"features", row.features}, {"active_per_token", row.active_per_token}};
    for (const ResponseMetric metric : kResponseMetrics) {
      const PairedScore& score = row.of(metric);
      entry[std::string(name(metric))] = {{"value", json_of(score.value)},
                                          {"difference", json_of(score.difference)},
                                          {"relative_change", json_of(score.relative_change)},
                                          {"p", score.p}};
    }
    rows.push_back(entry);
  }
  for (const StudyClaim& claim : claims_of(study))
    claims.push_back({{"claim", claim.text}, {"found", claim.found}, {"holds", claim.holds}});
  object["features"] = {{"all", study.sets.all_features}, {"live", study.sets.live_features}};
  object["sets"] = sets;
  object["sensitivity"] = sensitivities;
  object["models"] = rows;
  object["claims"] = claims;
  return object;
}

}  // namespace tadapt

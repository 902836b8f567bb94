#include "runtime/analysis/hesitation_study.h"

#include <cmath>
#include <map>
#include <optional>

#include "runtime/analysis/feature_rule.h"
#include "runtime/eval/model_set.h"
#include "runtime/train/agreement.h"

namespace tadapt {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

/// A model before it is asked.
struct Arm {
  std::string name, part, against;
  ModelKind kind = ModelKind::kAdapter;
  FeatureEdit edit = {};
  std::int64_t features = 0;
};

struct Sets {
  NamedFeatureSet output, template_features, both;
  std::vector<NamedFeatureSet> controls;  ///< of `both`
};

Sets select_sets(const HesitationRequest& request, const FeatureStore& store, FileSystem& files) {
  const RuleSubject subject{store, files, {}};
  const auto select = [&](const std::string& name, const std::string& rule) {
    const fs::path file = request.questions.directory / "sets" / (name + ".json");
    return NamedFeatureSet{file.string(), select_features(rule, name, subject)};
  };
  Sets sets{.output = select("output", kHesitationOutput),
            .template_features = select("template", kHesitationTemplate),
            .both = select("both", kHesitation),
            .controls = {}};
  if (sets.both.set.size() == 0)
    throw ConfigError("{}: no feature promotes hesitation or stands at the template's positions",
                      store.directory().string());
  for (const double times : request.control_times)
    sets.controls.push_back(
        select(fmt::format("control-{}", times),
               fmt::format("control({}, seed={}, times={})", kHesitation, request.control_seed, times)));
  return sets;
}

void save(const Sets& sets, FileSystem& files) {
  std::vector<const NamedFeatureSet*> all{&sets.output, &sets.template_features, &sets.both};
  for (const NamedFeatureSet& control : sets.controls) all.push_back(&control);
  files.make_directories(fs::path(sets.both.file).parent_path());
  for (const NamedFeatureSet* set : all) write_feature_set(files, set->file, set->set);
}

FeatureEdit without(const NamedFeatureSet& set) { return {.remove = set}; }
/// Nothing but these features on the hybrid: b_dec goes too, so that no features at all are the hybrid.
FeatureEdit alone(const NamedFeatureSet& set) {
  return {.keep_only = set, .decoder_bias = FeatureEdit::DecoderBias::kDropped};
}
FeatureEdit taken_from_target(const NamedFeatureSet& set) {
  return {.keep_only = set,
          .decoder_scale = kTakenFromTarget,
          .decoder_bias = FeatureEdit::DecoderBias::kDropped,
          .beside = MlpSource::kTarget};
}

std::vector<Arm> arms_of(const Sets& sets) {
  std::vector<Arm> arms{{.name = "target", .part = "reference", .against = "target", .kind = ModelKind::kTarget},
                        {.name = "hybrid", .part = "reference", .against = "target", .kind = ModelKind::kHybrid},
                        {.name = "adapter", .part = "reference", .against = "target"}};
  std::vector<const NamedFeatureSet*> all{&sets.output, &sets.template_features, &sets.both};
  for (const NamedFeatureSet& control : sets.controls) all.push_back(&control);
  const auto add = [&](const char* part, const char* against, const char* how, const NamedFeatureSet& set,
                       FeatureEdit edit) {
    arms.push_back({.name = fmt::format("{}-{}-{}", against, how, set.set.name),
                    .part = part,
                    .against = against,
                    .edit = std::move(edit),
                    .features = set.set.size()});
  };
  for (const NamedFeatureSet* set : all) add("necessity", "adapter", "without", *set, without(*set));
  for (const NamedFeatureSet* set : all) add("sufficiency", "hybrid", "with", *set, alone(*set));
  add("transfer", "target", "less", sets.both, taken_from_target(sets.both));
  for (const NamedFeatureSet& control : sets.controls)
    add("transfer", "target", "less", control, taken_from_target(control));
  return arms;
}

const PairedScore& of(const StudyRow& row, ResponseMetric metric) {
  return row.scores[static_cast<std::size_t>(metric)];
}

std::string percent(const Estimate& share) {
  if (std::isnan(share.value)) return "–";
  return fmt::format("{:+.1f} % [{:+.1f}, {:+.1f}]", 100.0 * share.value, 100.0 * share.low, 100.0 * share.high);
}

/// The paper's claims that the done experiment decides.
std::vector<StudyClaim> claims_of(const std::vector<StudyRow>& rows) {
  const auto row = [&](const std::string& name) -> const StudyRow& {
    return *std::ranges::find(rows, name, &StudyRow::name);
  };
  const auto change = [](const StudyRow& one, ResponseMetric metric) { return of(one, metric).relative_change; };
  const StudyRow &both = row("adapter-without-both"), &control = row("adapter-without-control-1");
  const Estimate rate = change(both, ResponseMetric::kHesitationRate),
                 length = change(both, ResponseMetric::kMeanTokens);
  const Estimate control_rate = change(control, ResponseMetric::kHesitationRate),
                 control_length = change(control, ResponseMetric::kMeanTokens);
  const auto small = [](const Estimate& of_control, const Estimate& of_set) {
    return std::abs(of_control.value) < std::abs(of_set.value) / 3.0;
  };
  const Estimate accuracy = of(both, ResponseMetric::kAccuracy).difference;
  const StudyRow& added = row("hybrid-with-both");
  const StudyRow& added_control = row("hybrid-with-control-1");
  const Estimate gained = of(added, ResponseMetric::kHesitationRate).difference,
                 gained_control = of(added_control, ResponseMetric::kHesitationRate).difference;
  const Estimate taken = change(row("target-less-both"), ResponseMetric::kHesitationRate);
  return {{"removing both sets cuts the hesitation rate by at least 70 %", percent(rate), rate.value <= -0.7},
          {"and shortens responses", percent(length), length.high < 0.0},
          {"a control of the same size changes the hesitation rate by less than a third of that", percent(control_rate),
           small(control_rate, rate)},
          {"and the length too", percent(control_length), small(control_length, length)},
          {"accuracy stays (difference within its interval of 0)", percent(accuracy),
           accuracy.low <= 0.0 && accuracy.high >= 0.0},
          {"on the hybrid both sets alone bring back more hesitation than their control",
           fmt::format("{:+.2f} and {:+.2f} per 1,000 tokens", gained.value, gained_control.value),
           gained.low > gained_control.high},
          {"taken from the target by half, they cut its hesitation rate", percent(taken), taken.high < 0.0}};
}

std::string value_of(const PairedScore& score, const char* pattern, double scale) {
  const auto number = [&](double value) { return fmt::format(fmt::runtime(pattern), scale * value); };
  return fmt::format("{} [{}, {}]", number(score.value.value), number(score.value.low), number(score.value.high));
}

}  // namespace

HesitationStudy run_hesitation_study(const HesitationRequest& request, const RunEnvironment& environment) {
  const RunOptions& options = request.questions.options;
  HesitationStudy study;
  Sets sets;
  agree(environment.world, [&] {
    const FeatureStore store(environment.files, request.features);
    store.require_identity(fingerprint(load_adapters(environment.files, request.adapters, environment.print)));
    sets = select_sets(request, store, environment.files);
    study.live_features = select_features("active()", "live", {store, environment.files, {}}).size();
    for (const int layer : store.layers()) study.all_features += store.features(layer);
  });
  on_rank_zero(environment.world, [&] {
    save(sets, environment.files);
    return std::string();
  });
  const QuestionSet questions(request.questions, environment);
  ModelSet models(options, {.path = request.adapters, .edit = {}},
                  {ModelKind::kHybrid, ModelKind::kAdapter, ModelKind::kTarget}, environment);
  const std::vector<Arm> arms = arms_of(sets);
  std::map<std::string, ModelResponses> responses;
  for (const Arm& arm : arms) {
    if (arm.features > 0) models.change_adapters(options, {.path = request.adapters, .edit = arm.edit}, environment);
    responses[arm.name] = questions.ask({arm.name, models.model(arm.kind), models.identity(arm.kind)});
  }
  if (environment.world.rank() != 0) return {};
  for (const Arm& arm : arms)
    study.rows.push_back({.name = arm.name,
                          .part = arm.part,
                          .against = arm.against,
                          .features = arm.features,
                          .scores = paired_scores(responses.at(arm.name), responses.at(arm.against), questions.size(),
                                                  request.questions.generation.seed)});
  study.subject = questions.subject();
  study.subject["rules"] = {{"output", kHesitationOutput}, {"template", kHesitationTemplate}};
  study.output = sets.output.set.size();
  study.template_features = sets.template_features.set.size();
  study.both = sets.both.set.size();
  study.claims = claims_of(study.rows);
  return study;
}

std::string to_markdown(const HesitationStudy& study) {
  const auto share = [&](std::int64_t count) {
    return fmt::format("{} ({:.2f} %)", count,
                       100.0 * static_cast<double>(count) / static_cast<double>(study.all_features));
  };
  std::string text =
      fmt::format("Of {} features, {} of them live: output {}, template {}, both {}.\n\n", study.all_features,
                  study.live_features, share(study.output), share(study.template_features), share(study.both));
  text +=
      "| model | features | accuracy, % | tokens | wait / 1k | hesitation / 1k | hesitation against | length against | "
      "degenerate, % |\n|---|---|---|---|---|---|---|---|---|\n";
  for (const StudyRow& row : study.rows) {
    const bool itself = row.name == row.against;
    const auto against = [&](ResponseMetric metric) {
      const PairedScore& score = of(row, metric);
      return itself ? std::string("–")
                    : fmt::format("{} {} (p {:.3f})", row.against, percent(score.relative_change), score.p);
    };
    text += fmt::format("| {} | {} | {} | {} | {} | {} | {} | {} | {} |\n", row.name,
                        row.features > 0 ? fmt::format("{}", row.features) : "",
                        value_of(of(row, ResponseMetric::kAccuracy), "{:.1f}", 100.0),
                        value_of(of(row, ResponseMetric::kMeanTokens), "{:.1f}", 1.0),
                        value_of(of(row, ResponseMetric::kWaitRate), "{:.2f}", 1.0),
                        value_of(of(row, ResponseMetric::kHesitationRate), "{:.2f}", 1.0),
                        against(ResponseMetric::kHesitationRate), against(ResponseMetric::kMeanTokens),
                        value_of(of(row, ResponseMetric::kDegenerateShare), "{:.1f}", 100.0));
  }
  text += "\n| claim | found | |\n|---|---|---|\n";
  for (const StudyClaim& claim : study.claims)
    text += fmt::format("| {} | {} | {} |\n", claim.text, claim.found, claim.holds ? "holds" : "does not hold");
  return text;
}

std::string to_json(const HesitationStudy& study) {
  Json object = study.subject, rows = Json::array(), claims = Json::array();
  object["features"] = {{"all", study.all_features},
                        {"live", study.live_features},
                        {"output", study.output},
                        {"template", study.template_features},
                        {"both", study.both}};
  for (const StudyRow& row : study.rows) {
    Json entry = {{"model", row.name}, {"part", row.part}, {"against", row.against}, {"features", row.features}};
    for (const ResponseMetric metric : kResponseMetrics) {
      const PairedScore& score = of(row, metric);
      entry[std::string(name(metric))] = {{"value", json_of(score.value)},
                                          {"difference", json_of(score.difference)},
                                          {"relative_change", json_of(score.relative_change)},
                                          {"p", score.p}};
    }
    rows.push_back(entry);
  }
  for (const StudyClaim& claim : study.claims)
    claims.push_back({{"claim", claim.text}, {"found", claim.found}, {"holds", claim.holds}});
  object["models"] = rows;
  object["claims"] = claims;
  return object.dump(2) + "\n";
}

}  // namespace tadapt

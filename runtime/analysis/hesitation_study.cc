#include "runtime/analysis/hesitation_study.h"

#include <algorithm>
#include <map>

#include "runtime/eval/model_set.h"
#include "runtime/train/agreement.h"

namespace tadapt {
namespace {

/// A model before it is asked.
struct Arm {
  StudyRow row;
  ModelKind kind = ModelKind::kAdapter;
  FeatureEdit edit = {};
};

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

std::vector<Arm> arms_of(const HesitationSets& sets) {
  const FeatureSet& meant = sets.both.named.set;
  const NamedFeatureSet nothing{"", {.name = "nothing", .rule = "", .adapters = meant.adapters, .features = {}}};
  const auto reference = [](const char* name, ModelKind kind, FeatureEdit edit) {
    return Arm{{.name = name, .part = "reference", .against = "target", .set = {}}, kind, std::move(edit)};
  };
  // Layers without an adapter keep the target's MLP in all of them.
  std::vector<Arm> arms{reference("target", ModelKind::kTarget, {}),
                        reference("hybrid", ModelKind::kAdapter, alone(nothing)),
                        reference("adapter", ModelKind::kAdapter, {})};
  struct Part {
    const char *name, *against, *how;
    FeatureEdit (*edit)(const NamedFeatureSet& set);
  };
  for (const Part& part :
       {Part{"necessity", "adapter", "without", without}, Part{"sufficiency", "hybrid", "with", alone},
        Part{"transfer", "target", "less", taken_from_target}})
    for (const HesitationSet* set : sets.all())
      arms.push_back({.row = {.name = fmt::format("{}-{}-{}", part.against, part.how, set->named.set.name),
                              .part = part.name,
                              .against = part.against,
                              .set = set->named.set.name,
                              .features = set->named.set.size(),
                              .active_per_token = set->active_per_token},
                      .edit = part.edit(set->named)});
  return arms;
}

}  // namespace

const StudyRow* HesitationStudy::find(const std::string& name) const {
  const auto found = std::ranges::find(rows, name, &StudyRow::name);
  return found == rows.end() ? nullptr : &*found;
}

HesitationStudy run_hesitation_study(const HesitationRequest& request, const RunEnvironment& environment) {
  const RunOptions& options = request.questions.options;
  HesitationStudy study;
  std::string adapters;
  agree(environment.world, [&] {
    const FeatureStore store(environment.files, request.features);
    adapters = fingerprint(load_adapters(environment.files, request.adapters, environment.print));
    store.require_identity(adapters);
    study.sets = select_hesitation(request.rules, {store, environment.files, {}}, request.questions.directory / "sets",
                                   environment.print);
  });
  const QuestionSet questions(request.questions, environment);
  on_rank_zero(environment.world, [&] {
    write(study.sets, environment.files);
    return std::string();
  });
  ModelSet models(options, {.path = request.adapters, .edit = {}}, {ModelKind::kAdapter, ModelKind::kTarget},
                  environment);
  const std::vector<Arm> arms = arms_of(study.sets);
  std::map<std::string, ModelResponses> responses;
  for (const Arm& arm : arms) {
    if (arm.kind == ModelKind::kAdapter)
      models.change_adapters(options, {.path = request.adapters, .edit = arm.edit}, environment);
    responses[arm.row.name] = questions.ask({arm.row.name, models.model(arm.kind), models.identity(arm.kind)});
  }
  if (environment.world.rank() != 0) return {};
  for (const Arm& arm : arms) {
    study.rows.push_back(arm.row);
    study.rows.back().scores = paired_scores(responses.at(arm.row.name), responses.at(arm.row.against),
                                             questions.size(), request.questions.generation.seed);
  }
  study.questions = questions.size();
  study.subject = questions.subject();
  study.subject["adapters"] = adapters;
  return study;
}

}  // namespace tadapt

#include "runtime/eval/evaluation.h"

#include <cmath>
#include <nlohmann/json.hpp>

#include "runtime/train/agreement.h"
#include "runtime/train/option_table.h"
#include "runtime/train/prepare_cache.h"
#include "runtime/train/progress.h"

namespace tadapt {
namespace {
using Json = nlohmann::ordered_json;

/// What the numbers of an evaluation depend on.
Json subject_of(const AdapterBundle& bundle, const TokenDataset& corpus, const RunOptions& options) {
  Json subject = {{"step", bundle.step}, {"corpus", fmt::format("{:016x}", corpus.fingerprint())}};
  for (const char* key : {"corpus.format", "corpus.max_sequence_tokens", "model.compute", "train.compute"})
    subject[key] = find_option(key)->value(options);
  if (!bundle.edits.empty()) subject["edits"] = bundle.edits;
  return subject;
}

Json agreement_json(const Agreement& agreement) {
  if (agreement.tokens == 0.0) return {{"tokens", 0}};
  return {{"tokens", static_cast<std::int64_t>(agreement.tokens)},
          {"token_kl", agreement.mean_kl()},
          {"top1_disagreement", agreement.disagreement()}};
}

Json model_json(const ModelAgreement& model) {
  return {{"model", model.name},
          {"all", agreement_json(model.all)},
          {"response", agreement_json(model.response)},
          {"uncertain", agreement_json(model.uncertain)}};
}

/// Three significant digits; "-" for the mean of nothing.
std::string number(double value) { return std::isfinite(value) ? fmt::format("{:.3g}", value) : "-"; }

std::string percent(double value) { return std::isfinite(value) ? fmt::format("{:.2f} %", 100.0 * value) : "-"; }

std::string model_row(const ModelAgreement& model) {
  return fmt::format("{:<14} {:>10} {:>10} {:>10} {:>10} {:>10} {:>10}\n", model.name, number(model.response.mean_kl()),
                     percent(model.response.disagreement()), number(model.uncertain.mean_kl()),
                     percent(model.uncertain.disagreement()), number(model.all.mean_kl()),
                     percent(model.all.disagreement()));
}

constexpr char kModelHeader[] = "{:<14} {:>10} {:>10} {:>10} {:>10} {:>10} {:>10}\n";

}  // namespace

AdapterBundle load_fitting_adapters(const RunOptions& options, const AdapterSource& adapters,
                                    const RunEnvironment& environment) {
  AdapterBundle bundle;
  agree(environment.world, [&] {
    bundle = load_edited_adapters(environment.files, adapters, environment.print);
    require_models_fit(environment.files, bundle, options.model.base, options.model.target);
  });
  return bundle;
}

Evaluator::Evaluator(const RunOptions& options, const std::filesystem::path& corpus, const RunEnvironment& environment)
    : options_(options), environment_(environment) {
  agree(environment.world, [&] {
    corpus_ = load_corpus(options, corpus, environment);
    const DecoderConfig target = load_decoder_config(environment.files, options.model.target);
    for (std::int64_t i = 0; i < corpus_->size(); ++i)
      require_positions(target, i, static_cast<std::int64_t>(corpus_->sequence(i).ids.size()));
    environment.heartbeat("loading models");
    pair_ = Decoder::load_pair(environment.context, environment.files, options.model.target, options.model.base,
                               options.model.compute);
    refusal_ = base_row_refusal(load_decoder_config(environment.files, options.model.base), target).value_or("");
    if (refusal_.empty()) base_ = pair_->load_base(environment.context, environment.files, options.model.base);
  });
}

Evaluation Evaluator::evaluate(const AdapterBundle& bundle, FaithfulnessOptions::Partial partial) {
  environment_.print(fmt::format("eval: {} of step {}{}{} on {} sequences, {} tokens", bundle.source, bundle.step,
                                 bundle.edits.empty() ? "" : ": ", bundle.edits, corpus_->size(),
                                 corpus_->total_tokens()));
  AdapterSet adapters(environment_.context, bundle, options_.train.compute);
  const FaithfulnessModels models{*pair_, base_ ? &*base_ : nullptr, refusal_, adapters};
  ProgressReport progress("eval", "sequences", corpus_->size(), 0, options_.log.every_seconds, environment_.print);
  FaithfulnessReport report = evaluate_faithfulness(
      environment_.context, environment_.world, models, *corpus_,
      {.partial = partial, .stop_requested = environment_.stop_requested, .progress = [&](std::int64_t done) {
         environment_.heartbeat("evaluation");
         progress.update(std::min(done, corpus_->size()));
       }});
  return {.subject = subject_of(bundle, *corpus_, options_), .report = std::move(report)};
}

Evaluation run_evaluation(const EvaluationRequest& request, const RunEnvironment& environment) {
  const AdapterBundle bundle = load_fitting_adapters(request.options, request.adapters, environment);
  return Evaluator(request.options, request.corpus, environment).evaluate(bundle, request.partial);
}

std::string to_table(const FaithfulnessReport& report) {
  std::string table =
      fmt::format("Against the target, {} sequences, {} tokens\n", report.sequences, report.tokens) +
      fmt::format(kModelHeader, "", "response", "", "uncertain", "", "all", "") +
      fmt::format(kModelHeader, "model", "token KL", "top-1 diff", "token KL", "top-1 diff", "token KL", "top-1 diff");
  for (const ModelAgreement& model : report.models) table += model_row(model);
  if (!report.base_refusal.empty()) table += fmt::format("(no base row: {})\n", report.base_refusal);
  table += fmt::format("\n{:<8} {:>10} {:>8} {:>10} {:>18} {:>18}\n", "layer", "delta NMSE", "L0", "dead",
                       "residual NMSE", "(hybrid)");
  for (const LayerFaithfulness& layer : report.layers) {
    const auto state = static_cast<std::size_t>(layer.layer) + 1;
    table += fmt::format("{:<8} {:>10} {:>8} {:>10} {:>18} {:>18}\n", layer.layer, number(layer.delta_nmse),
                         number(layer.l0), percent(layer.dead_share), number(report.adapter_residual_nmse[state]),
                         number(report.hybrid_residual_nmse[state]));
  }
  table += fmt::format("mean L0 {:.3g}; dead: active on none of these {} tokens; residual NMSE: after the layer\n",
                       report.mean_l0(), report.tokens);
  if (report.partial.empty()) return table;
  table +=
      "\nReplacing only some layers of the target\n" +
      fmt::format(kModelHeader, "layers", "token KL", "top-1 diff", "token KL", "top-1 diff", "token KL", "top-1 diff");
  for (const ModelAgreement& model : report.partial) table += model_row(model);
  return table;
}

std::string to_json(const Evaluation& evaluation) {
  const FaithfulnessReport& report = evaluation.report;
  Json models = Json::array(), partial = Json::array(), layers = Json::array();
  for (const ModelAgreement& model : report.models) models.push_back(model_json(model));
  for (const ModelAgreement& model : report.partial) partial.push_back(model_json(model));
  for (const LayerFaithfulness& layer : report.layers)
    layers.push_back(
        {{"layer", layer.layer}, {"delta_nmse", layer.delta_nmse}, {"l0", layer.l0}, {"dead_share", layer.dead_share}});
  Json object = evaluation.subject;
  object["sequences"] = report.sequences;
  object["tokens"] = report.tokens;
  object["models"] = models;
  object["mean_l0"] = report.mean_l0();
  object["layers"] = layers;
  object["residual_nmse"] = {{"hybrid", report.hybrid_residual_nmse}, {"adapter", report.adapter_residual_nmse}};
  object["partial_replacement"] = partial;
  if (!report.base_refusal.empty()) object["base_refusal"] = report.base_refusal;
  return object.dump(2) + "\n";
}

}  // namespace tadapt

#include "runtime/eval/evaluation.h"

#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>

#include "data/model_files.h"
#include "runtime/train/agreement.h"
#include "runtime/train/prepare_cache.h"
#include "runtime/train/progress.h"

namespace tadapt {
namespace {
using Json = nlohmann::ordered_json;

void require_models_fit(const AdapterBundle& bundle, const RunOptions& options, const DecoderConfig& config) {
  const auto check = [&](const char* which, const std::string& trained, const std::filesystem::path& directory) {
    if (trained.empty()) return;
    const std::string found = model_fingerprint(directory);
    if (found != trained)
      throw ConfigError("{}: trained for the {} model {}, but {} is {}", bundle.source, which, trained,
                        directory.string(), found);
  };
  check("base", bundle.base_fingerprint, options.model.base);
  check("target", bundle.target_fingerprint, options.model.target);
  for (const AdapterBundle::Layer& layer : bundle.layers)
    if (layer.layer < 0 || layer.layer >= config.layers || layer.shape.model_width != config.width)
      throw ConfigError("{}: layer {} of width {} does not fit a model of {} layers and width {}", bundle.source,
                        layer.layer, layer.shape.model_width, config.layers, config.width);
}

Json agreement_json(const Agreement& agreement) {
  if (agreement.tokens == 0.0) return {{"tokens", 0}};
  return {
      {"tokens", agreement.tokens}, {"token_kl", agreement.mean_kl()}, {"top1_disagreement", agreement.disagreement()}};
}

Json model_json(const ModelAgreement& model) {
  return {{"model", model.name},
          {"all", agreement_json(model.all)},
          {"response", agreement_json(model.response)},
          {"uncertain", agreement_json(model.uncertain)}};
}

std::string number(double value, int digits) {
  return std::isfinite(value) ? fmt::format("{:.{}f}", value, digits) : std::string("-");
}

std::string percent(double value) { return std::isfinite(value) ? fmt::format("{:.2f} %", 100.0 * value) : "-"; }

std::string model_row(const ModelAgreement& model) {
  return fmt::format("{:<14} {:>10} {:>10} {:>10} {:>10} {:>10} {:>10}\n", model.name,
                     number(model.response.mean_kl(), 4), percent(model.response.disagreement()),
                     number(model.uncertain.mean_kl(), 4), percent(model.uncertain.disagreement()),
                     number(model.all.mean_kl(), 4), percent(model.all.disagreement()));
}

constexpr char kModelHeader[] = "{:<14} {:>10} {:>10} {:>10} {:>10} {:>10} {:>10}\n";

}  // namespace

FaithfulnessReport run_evaluation(const EvaluationRequest& request, const RunEnvironment& environment) {
  const RunOptions& options = request.options;
  AdapterBundle bundle;
  std::optional<TokenDataset> corpus;
  std::optional<Decoder> pair, base;
  std::string refusal;
  agree(environment.world, [&] {
    bundle = load_adapters(environment.files, request.adapters, environment.print);
    corpus = load_corpus(options, request.corpus, environment);
    const DecoderConfig target = load_decoder_config(environment.files, options.model.target);
    require_models_fit(bundle, options, target);
    environment.heartbeat("loading models");
    pair = Decoder::load_pair(environment.context, environment.files, options.model.target, options.model.base,
                              options.model.compute);
    refusal = base_row_refusal(load_decoder_config(environment.files, options.model.base), target).value_or("");
    if (refusal.empty()) base = pair->load_base(environment.context, environment.files, options.model.base);
  });
  environment.print(fmt::format("eval: {} of step {} on {} sequences, {} tokens", bundle.source, bundle.step,
                                corpus->size(), corpus->total_tokens()));
  AdapterSet adapters(environment.context, bundle, options.train.compute);
  const FaithfulnessModels models{*pair, base ? &*base : nullptr, refusal, adapters};
  ProgressReport progress("eval", "sequences", corpus->size(), 0, options.log.every_seconds, environment.print);
  return evaluate_faithfulness(
      environment.context, environment.world, models, *corpus,
      {.partial = request.partial, .stop_requested = environment.stop_requested, .progress = [&](std::int64_t done) {
         environment.heartbeat("evaluation");
         progress.update(std::min(done, corpus->size()));
       }});
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
    table += fmt::format("{:<8} {:>10} {:>8} {:>10} {:>18} {:>18}\n", layer.layer, number(layer.delta_nmse, 4),
                         number(layer.l0, 2), percent(layer.dead_share), number(report.adapter_residual_nmse[state], 5),
                         number(report.hybrid_residual_nmse[state], 5));
  }
  table += fmt::format("mean L0 {:.2f}; dead: active on none of these {} tokens; residual NMSE: after the layer\n",
                       report.mean_l0(), report.tokens);
  if (report.partial.empty()) return table;
  table +=
      "\nReplacing only some layers of the target\n" +
      fmt::format(kModelHeader, "layers", "token KL", "top-1 diff", "token KL", "top-1 diff", "token KL", "top-1 diff");
  for (const ModelAgreement& model : report.partial) table += model_row(model);
  return table;
}

std::string to_json(const FaithfulnessReport& report) {
  Json models = Json::array(), partial = Json::array(), layers = Json::array();
  for (const ModelAgreement& model : report.models) models.push_back(model_json(model));
  for (const ModelAgreement& model : report.partial) partial.push_back(model_json(model));
  for (const LayerFaithfulness& layer : report.layers)
    layers.push_back(
        {{"layer", layer.layer}, {"delta_nmse", layer.delta_nmse}, {"l0", layer.l0}, {"dead_share", layer.dead_share}});
  Json object = {
      {"sequences", report.sequences},
      {"tokens", report.tokens},
      {"models", models},
      {"mean_l0", report.mean_l0()},
      {"layers", layers},
      {"residual_nmse", {{"hybrid", report.hybrid_residual_nmse}, {"adapter", report.adapter_residual_nmse}}},
      {"partial_replacement", partial}};
  if (!report.base_refusal.empty()) object["base_refusal"] = report.base_refusal;
  return object.dump(2) + "\n";
}

}  // namespace tadapt

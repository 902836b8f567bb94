#include "runtime/eval/model_set.h"

#include <algorithm>
#include <array>

#include "data/model_files.h"
#include "runtime/train/agreement.h"

namespace tadapt {
namespace {

constexpr std::array kNames{"base", "hybrid", "adapter", "target"};

/// Of the weights as they run.
std::string adapters_identity(const AdapterBundle& bundle, DType compute) {
  return fmt::format("{} {}{}", fingerprint(bundle), name(compute),
                     bundle.beside == MlpSource::kTarget ? " beside target" : "");
}

}  // namespace

const char* name(ModelKind kind) { return kNames[static_cast<std::size_t>(kind)]; }

ModelKind parse_model_kind(std::string_view text) {
  const auto found = std::ranges::find(kNames, text);
  if (found == kNames.end()) throw ConfigError("expected base, hybrid, adapter or target, found '{}'", text);
  return static_cast<ModelKind>(found - kNames.begin());
}

ModelSet::ModelSet(const RunOptions& options, const AdapterSource& adapters, const std::vector<ModelKind>& kinds,
                   const RunEnvironment& environment) {
  agree(environment.world, [&] { load(options, adapters, kinds, environment); });
}

void ModelSet::load(const RunOptions& options, const AdapterSource& adapters, const std::vector<ModelKind>& kinds,
                    const RunEnvironment& environment) {
  const auto wants = [&](ModelKind kind) { return std::ranges::find(kinds, kind) != kinds.end(); };
  const auto& [base, target, compute] = options.model;
  Context& context = environment.context;
  const bool needs_pair = wants(ModelKind::kHybrid) || wants(ModelKind::kAdapter);
  environment.heartbeat("loading models");
  if (needs_pair || wants(ModelKind::kTarget)) {
    pair_ = needs_pair ? Decoder::load_pair(context, environment.files, target, base, compute)
                       : Decoder::load(context, environment.files, target, compute);
    target_identity_ = fmt::format("{} {}", model_fingerprint(target), name(compute));
  }
  if (needs_pair || wants(ModelKind::kBase))
    base_identity_ = fmt::format("{} {}", model_fingerprint(base), name(compute));
  if (wants(ModelKind::kBase)) {
    if (!target.empty()) {
      const auto refusal = base_row_refusal(load_decoder_config(environment.files, base),
                                            load_decoder_config(environment.files, target));
      if (refusal) throw ConfigError("the base cannot answer the target's prompts: {}", *refusal);
    }
    base_ = needs_pair ? pair_->load_base(context, environment.files, base)
                       : Decoder::load(context, environment.files, base, compute);
  }
  if (wants(ModelKind::kAdapter)) load_adapter_set(options, adapters, environment);
}

void ModelSet::load_adapter_set(const RunOptions& options, const AdapterSource& adapters,
                                const RunEnvironment& environment) {
  const AdapterBundle bundle = load_edited_adapters(environment.files, adapters, environment.print);
  require_models_fit(environment.files, bundle, options.model.base, options.model.target);
  edits_ = bundle.edits;
  adapter_identity_ = adapters_identity(bundle, options.train.compute);
  adapters_.reset();
  adapters_.emplace(environment.context, bundle, options.train.compute);
}

void ModelSet::change_adapters(const RunOptions& options, const AdapterSource& adapters,
                               const RunEnvironment& environment) {
  agree(environment.world, [&] { load_adapter_set(options, adapters, environment); });
}

GenerationModel ModelSet::model(ModelKind kind) {
  const Decoder& decoder = kind == ModelKind::kBase ? *base_ : *pair_;
  const int layers = decoder.config().layers;
  switch (kind) {
    case ModelKind::kBase:
    case ModelKind::kTarget:
      return {decoder, uniform_splice(layers, {})};
    case ModelKind::kHybrid:
      return {decoder, uniform_splice(layers, {.mlp = MlpSource::kBase})};
    case ModelKind::kAdapter:
      return {decoder, adapters_->splice(layers, 0, layers)};
  }
  throw ConfigError("no such model");
}

std::string ModelSet::identity(ModelKind kind) const {
  switch (kind) {
    case ModelKind::kBase:
      return base_identity_;
    case ModelKind::kTarget:
      return target_identity_;
    case ModelKind::kHybrid:
      return target_identity_ + " " + base_identity_;
    case ModelKind::kAdapter:
      return target_identity_ + " " + base_identity_ + " " + adapter_identity_;
  }
  throw ConfigError("no such model");
}

}  // namespace tadapt

#include "runtime/bundle/feature_edit.h"

#include <fmt/ranges.h>
#include <xxhash.h>

#include <algorithm>
#include <vector>

namespace tadapt {
namespace {

void fill_zero(const Tensor& tensor) { std::ranges::fill(tensor.span<float>(), 0.0f); }

/// By feature: whether the set names it.
std::vector<bool> named(const FeatureSet& set, const AdapterBundle::Layer& layer) {
  std::vector<bool> mask(static_cast<std::size_t>(layer.shape.features), false);
  const auto ids = set.features.find(layer.layer);
  if (ids == set.features.end()) return mask;
  for (const std::int32_t id : ids->second) mask[static_cast<std::size_t>(id)] = true;
  return mask;
}

/// A feature without encoder is never active; without decoder row it leaves no trace in an export either.
void remove(const AdapterBundle::Layer& layer, const std::vector<bool>& mask, bool marked) {
  const ParameterTensors masters = layer.store->master_views(0);
  for (std::int64_t i = 0; i < layer.shape.features; ++i) {
    if (mask[static_cast<std::size_t>(i)] != marked) continue;
    for (const char* name : {"W_enc", "b_enc", "W_dec"}) fill_zero(masters[name].rows(i, i + 1));
  }
}

std::string described(const char* verb, const std::optional<NamedFeatureSet>& set) {
  if (!set) return {};
  const std::string text = to_json(set->set);
  return fmt::format("{} {} ({} features, {:016x})", verb, set->set.name, set->set.size(),
                     XXH3_64bits(text.data(), text.size()));
}

}  // namespace

std::string FeatureEdit::to_string() const {
  std::vector<std::string> parts{described("keep only", keep_only), described("remove", remove)};
  if (decoder_scale != 1.0f) parts.push_back(fmt::format("decoders times {}", decoder_scale));
  if (decoder_bias == DecoderBias::kDropped) parts.emplace_back("without decoder bias");
  if (beside == MlpSource::kTarget) parts.emplace_back("beside the target's MLPs");
  std::erase(parts, "");
  return fmt::format("{}", fmt::join(parts, ", "));
}

void apply(const FeatureEdit& edit, AdapterBundle& bundle) {
  for (const auto* set : {&edit.keep_only, &edit.remove})
    if (*set) require_set_fits((*set)->set, dictionaries_of(bundle), (*set)->file);
  for (const AdapterBundle::Layer& layer : bundle.layers) {
    if (edit.keep_only) remove(layer, named(edit.keep_only->set, layer), false);
    if (edit.remove) remove(layer, named(edit.remove->set, layer), true);
    const ParameterTensors masters = layer.store->master_views(0);
    if (edit.decoder_bias == FeatureEdit::DecoderBias::kDropped) fill_zero(masters["b_dec"]);
    for (float& weight : masters["W_dec"].span<float>()) weight *= edit.decoder_scale;
  }
  if (edit.beside == MlpSource::kTarget) bundle.beside = edit.beside;
  const std::string edits = edit.to_string();
  if (!edits.empty()) bundle.edits += (bundle.edits.empty() ? "" : "; ") + edits;
}

AdapterBundle load_edited_adapters(FileSystem& files, const AdapterSource& source,
                                   const std::function<void(const std::string&)>& warn) {
  AdapterBundle bundle = load_adapters(files, source.path, warn);
  apply(source.edit, bundle);
  return bundle;
}

}  // namespace tadapt

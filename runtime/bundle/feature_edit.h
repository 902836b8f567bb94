// FeatureEdit: adapters with features taken out, kept alone or scaled, as interventions want them.
#pragma once

#include <filesystem>
#include <functional>
#include <optional>
#include <string>

#include "runtime/bundle/feature_set.h"

namespace tadapt {

/// A set and the file it is from.
struct NamedFeatureSet {
  std::string file;
  FeatureSet set;
};

/// Decoders' scale of features that are added to the target: it loses half of what they would add.
inline constexpr float kTakenFromTarget = -0.5f;

/// What is changed of trained adapters before they run.
struct FeatureEdit {
  enum class DecoderBias : std::uint8_t { kKept, kDropped };

  std::optional<NamedFeatureSet> remove = {};     ///< encoder row, its bias and decoder row become 0
  std::optional<NamedFeatureSet> keep_only = {};  ///< all others are removed; then `remove` is
  float decoder_scale = 1.0f;                     ///< of W_dec of what is left
  DecoderBias decoder_bias = DecoderBias::kKept;  ///< kept, an adapter without features still adds b_dec
  MlpSource beside = MlpSource::kBase;  ///< which MLPs the adapters run beside: kTarget adds them to the target

  /// What was done, in words that tell two edits apart; empty when nothing is.
  std::string to_string() const;
};

/// Which adapters a command runs.
struct AdapterSource {
  std::filesystem::path path;  ///< anything load_adapters takes
  FeatureEdit edit;
};

/// Changes the masters and says so in `bundle.edits`. The errors of require_set_fits.
void apply(const FeatureEdit& edit, AdapterBundle& bundle);

/// load_adapters(), then the edit.
AdapterBundle load_edited_adapters(FileSystem& files, const AdapterSource& source,
                                   const std::function<void(const std::string&)>& warn);

}  // namespace tadapt

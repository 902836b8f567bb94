// ModelSet: base, hybrid, adapter model and target, as far as they are wanted, ready to run.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/bundle/feature_edit.h"
#include "runtime/eval/adapter_set.h"
#include "runtime/model/generation.h"
#include "runtime/train/run_environment.h"
#include "runtime/train/run_options.h"

namespace tadapt {

enum class ModelKind { kBase, kHybrid, kAdapter, kTarget };
const char* name(ModelKind kind);  ///< "base", "hybrid", "adapter", "target"
/// ConfigError listing the names when `text` is none.
ModelKind parse_model_kind(std::string_view text);

class ModelSet {
 public:
  /// Loads what these kinds need, every weight once. `adapters`: with an empty path when no adapter model is wanted.
  /// Collective. ConfigError when models and adapters do not belong together, or the base has another
  /// vocabulary than the target beside it.
  ModelSet(const RunOptions& options, const AdapterSource& adapters, const std::vector<ModelKind>& kinds,
           const RunEnvironment& environment);

  /// From now on these are the adapters. Collective; the errors of the constructor.
  void change_adapters(const RunOptions& options, const AdapterSource& adapters, const RunEnvironment& environment);

  GenerationModel model(ModelKind kind);
  /// What tells a model's responses from those of others: fingerprints of weights and adapters, and the compute type.
  std::string identity(ModelKind kind) const;
  /// What was changed of the adapters after training, in words; empty: nothing.
  const std::string& edits() const { return edits_; }

 private:
  void load_adapter_set(const RunOptions& options, const AdapterSource& adapters, const RunEnvironment& environment);
  void load(const RunOptions& options, const AdapterSource& adapters, const std::vector<ModelKind>& kinds,
            const RunEnvironment& environment);

  std::optional<Decoder> pair_, base_;
  std::optional<AdapterSet> adapters_;
  std::string base_identity_, target_identity_, adapter_identity_, edits_;
};

}  // namespace tadapt

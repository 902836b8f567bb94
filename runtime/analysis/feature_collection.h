// One pass over a corpus that counts and keeps, of every feature, what its LayerRecords hold.
#pragma once

#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "runtime/analysis/contrast_windows.h"
#include "runtime/model/decoder.h"
#include "runtime/train/run_environment.h"

namespace tadapt {

/// Gets the activations [T, F] float32, at least 0, of one layer of a batch, where `context` computes; gone when it
/// returns.
using ActivationSink = std::function<void(Context& context, int layer, const Tensor& activations)>;

/// Something with features: runs a batch, and shows the activations of its layers.
class FeatureSource {
 public:
  struct Layer {
    int layer = 0;
    std::int64_t features = 0;
  };
  virtual ~FeatureSource() = default;
  virtual std::vector<Layer> layers() const = 0;
  /// A row of activations depends on its own conversation only.
  virtual void run(const TokenBatch& batch, const ActivationSink& sink) = 0;
  /// Numbers of the layer's features, ascending.
  virtual std::vector<std::int32_t> ids(int layer) const = 0;
  /// What each of them writes to the residual stream, [F, D] float32 on the host, and the model whose head reads it.
  virtual Tensor directions(int layer) const = 0;
  virtual const Decoder& decoder() const = 0;
};

struct CollectionJob {
  std::string name;  ///< "features", for progress
  FeatureSource& source;
  const MarkedCorpus& corpus;
  const ContrastWindows& contrast;
  RecordOptions records;
  std::string identity;              ///< of all that decides the result; partial results of another are refused
  std::filesystem::path directory;   ///< of partial results
  std::int64_t batch_tokens = 4096;  ///< run together; a longer conversation goes alone
  std::int64_t unit = 64;            ///< consecutive conversations that a rank takes at a time
  double save_seconds = 600.0;       ///< between partial saves
  double meeting_seconds = 1.0;      ///< between meetings, in which ranks learn of stops
  double progress_seconds = 5.0;
};

/// The records of this rank's conversations, one entry a layer; nothing when a stop was asked for: then what was done
/// is saved. Ranks take units of conversations in turn, those of an interrupted job left out. The records of all ranks
/// together are the same for any rank count, batch size and number of interruptions. Collective.
std::optional<std::vector<LayerRecords>> collect(const CollectionJob& job, const RunEnvironment& environment);

/// Joins the ranks' records of up to as many layers as there are ranks: layer `first` + r on rank r, which alone has it
/// then (the others: nothing). Every rank's own records of these layers are used up. Collective.
std::optional<LayerRecords> join_layers(std::vector<LayerRecords>& records, std::size_t first, const CollectionJob& job,
                                        const RunEnvironment& environment);

}  // namespace tadapt

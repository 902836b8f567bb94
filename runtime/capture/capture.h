// Capture: runs the target over a corpus and writes what each chosen layer's adapter is to learn from.
#pragma once

#include <filesystem>
#include <functional>

#include "data/activation_cache_writer.h"
#include "runtime/capture/capture_identity.h"
#include "runtime/capture/capture_plan.h"
#include "runtime/comm/communicator.h"

namespace tadapt {

/// Rows over all ranks, those of earlier runs included.
struct CaptureProgress {
  std::int64_t rows_done = 0;
  std::int64_t rows_total = 0;
};

enum class CaptureOutcome { kDone, kStopped };

/// All ranks give the same but for `ranks`, `context` and the callbacks.
struct CaptureJob {
  FileSystem& files;
  Communicator& ranks;
  Context& context;
  const Decoder& pair;  ///< the target, with the base's MLPs as MlpSource::kBase
  const CapturePlan& plan;
  std::filesystem::path directory;
  Provenance provenance;
  /// Token ids of a sequence of the corpus; called by one thread. The span lasts until the next call.
  std::function<std::span<const std::int32_t>(std::int64_t sequence)> tokens;
  std::int64_t batch_tokens = 4096;  ///< packed into one pass (a longer sequence runs alone); changes no bit
  std::function<bool()> stop_requested = [] { return false; };                           ///< asked after every batch
  std::function<void(const CaptureProgress&)> progress = [](const CaptureProgress&) {};  ///< called after every batch
};

/// Whether the directory holds the whole cache already, so that no model need be loaded. A collective call: the first
/// rank looks. ConfigError naming the differing keys when it holds, or was begun as, another capture.
bool capture_is_complete(FileSystem& files, Communicator& ranks, const CaptureIdentity& identity);

/// For every kept row t and layer ℓ of the plan: x = mlp_in of the target's own run, Δ = MLP_target(x) − MLP_base(x),
/// both float32 before they are rounded to the row format. Shards that are whole already are kept. kStopped (agreed by
/// all ranks within one batch) leaves a directory that a later call with the same plan goes on with. The files are the
/// same, byte for byte, for any number of ranks, threads and interruptions.
/// Throws WriteError before any work when the disk has less than is needed; ConfigError as capture_is_complete, or when
/// a shard does not fit into memory; NonFiniteError naming layer, tensor, sequence and position.
CaptureOutcome capture(const CaptureJob& job);

}  // namespace tadapt

// From run options to an activation cache: left alone when it is there and fits, captured when it is not.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "data/token_dataset.h"
#include "runtime/capture/capture.h"
#include "runtime/train/run_environment.h"
#include "runtime/train/run_options.h"

namespace tadapt {

/// Which cache the options describe: format, models, tokenizer, corpus and choice of rows, by content. Reads headers
/// and the corpus file once, loads no model and tokenises nothing. A corpus file that is not there goes unmentioned: a
/// cache that is complete can do without. MissingInputError, ConfigError, DataError.
CaptureIdentity cache_identity(const RunOptions& options, FileSystem& files);

/// A capture about to begin: the corpus tokenised, the plan made.
class CacheCapture {
 public:
  CacheCapture(const RunOptions& options, const RunEnvironment& environment, const CaptureIdentity& identity);

  const CapturePlan& plan() const { return plan_; }
  const TokenDataset& corpus() const { return corpus_; }
  /// Loads the models and captures what is missing. Collective.
  CaptureOutcome run();

 private:
  const RunOptions& options_;
  const RunEnvironment& environment_;
  const CaptureIdentity& identity_;
  DecoderConfig target_;
  TokenDataset corpus_;
  CapturePlan plan_;
};

/// File in a cache directory that a capture holds a lock on.
inline constexpr char kCaptureLock[] = "capture.lock";

/// Makes sure the cache is there: prints its exact size, captures with progress lines. `approve` sees the plan first
/// and may throw. WriteError naming the holder while another job captures in the same directory. Collective.
CaptureOutcome prepare_cache(const RunOptions& options, const RunEnvironment& environment,
                             const CaptureIdentity& identity,
                             const std::function<void(const CapturePlan&)>& approve = {});

/// The plan in words: rows, shards, exact bytes on disk, memory and work.
std::string describe(const CapturePlan& plan);

/// The corpus of a file as the run's options tokenise it, with the target's tokenizer.
TokenDataset load_corpus(const RunOptions& options, const std::filesystem::path& file,
                         const RunEnvironment& environment);

}  // namespace tadapt

// From the options of a run to what a capture works with.
#pragma once

#include <string>
#include <vector>

#include "data/activation_cache.h"
#include "runtime/capture/row_choice.h"
#include "runtime/train/run_options.h"

namespace tadapt {

/// What the inputs of a capture are known by; see model_fingerprint, Tokenizer and TokenDataset.
struct CaptureSources {
  std::string base;
  std::string target;
  std::string tokenizer;
  std::string corpus;
};

DType row_dtype(RowFormat rows);
CacheFormat cache_format(const CacheOptions& options, std::vector<int> layers, std::int64_t width);
/// Rows are drawn by the run's seed.
RowChoice row_choice(const RunOptions& options);
/// All options that decide which rows a cache has and what is in them, by their names in the configuration, and the
/// fingerprints; two caches are interchangeable exactly when format and provenance agree.
Provenance capture_provenance(const CaptureSources& sources, const RunOptions& options);

}  // namespace tadapt

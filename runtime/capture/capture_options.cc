#include "runtime/capture/capture_options.h"

namespace tadapt {
namespace {

const char* name(ChatFormat format) {
  switch (format) {
    case ChatFormat::kDeepseek:
      return "deepseek";
    case ChatFormat::kQwen:
      return "qwen";
    case ChatFormat::kPlain:
      return "plain";
  }
  return "unknown";
}

}  // namespace

DType row_dtype(RowFormat rows) {
  switch (rows) {
    case RowFormat::kBFloat16:
      return DType::kBFloat16;
    case RowFormat::kFloat32:
      return DType::kFloat32;
    case RowFormat::kInt8:
      return DType::kInt8;
  }
  throw ConfigError("cache.rows: unknown format {}", static_cast<int>(rows));
}

CacheFormat cache_format(const CacheOptions& options, std::vector<int> layers, std::int64_t width) {
  return {.layers = std::move(layers),
          .width = width,
          .row_dtype = row_dtype(options.rows),
          .chunk_bytes = options.chunk_bytes,
          .sequences_per_shard = options.sequences_per_shard};
}

RowChoice row_choice(const RunOptions& options) {
  return {.max_tokens = options.cache.max_tokens,
          .tokens_per_sequence = options.cache.tokens_per_sequence,
          .drop_first_positions = options.cache.drop_first_positions,
          .seed = options.train.seed};
}

Provenance capture_provenance(const CaptureSources& sources, const RunOptions& options) {
  Provenance all{{"model.base", sources.base},
                 {"model.target", sources.target},
                 {"model.compute", tadapt::name(options.model.compute)},
                 {"tokenizer", sources.tokenizer},
                 {"corpus.train", sources.corpus},
                 {"corpus.format", name(options.corpus.format)},
                 {"corpus.max_sequence_tokens", std::to_string(options.corpus.max_sequence_tokens)},
                 {"cache.max_tokens", std::to_string(options.cache.max_tokens)},
                 {"cache.tokens_per_sequence", std::to_string(options.cache.tokens_per_sequence)},
                 {"cache.drop_first_positions", std::to_string(options.cache.drop_first_positions)}};
  // The seed decides nothing else of a capture: without drawing, caches of different seeds are the same.
  if (options.cache.tokens_per_sequence > 0) all["train.seed"] = std::to_string(options.train.seed);
  return all;
}

}  // namespace tadapt

#include "runtime/train/prepare_cache.h"

#include <xxhash.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "data/model_files.h"
#include "data/tokenizer.h"
#include "kernels/core/host_memory.h"
#include "runtime/plan/estimate.h"
#include "runtime/train/agreement.h"
#include "runtime/train/option_table.h"
#include "runtime/train/progress.h"
#include "runtime/train/run_directory.h"

namespace tadapt {
namespace {

std::string hex(std::uint64_t value) { return fmt::format("{:016x}", value); }

/// XXH3 of a whole file, read in pieces.
std::string file_hash(FileSystem& files, const std::filesystem::path& path) {
  const auto file = files.open(path, OpenMode::kRead);
  const std::unique_ptr<XXH3_state_t, decltype(&XXH3_freeState)> state(XXH3_createState(), &XXH3_freeState);
  XXH3_64bits_reset(state.get());
  std::vector<std::byte> piece(8u << 20);
  for (std::uint64_t offset = 0; offset < file->size(); offset += piece.size()) {
    const auto count = static_cast<std::size_t>(std::min<std::uint64_t>(piece.size(), file->size() - offset));
    file->read(offset, std::span(piece).first(count));
    XXH3_64bits_update(state.get(), piece.data(), count);
  }
  return hex(XXH3_64bits_digest(state.get()));
}

DType cached_dtype(RowFormat rows) {
  switch (rows) {
    case RowFormat::kBFloat16:
      return DType::kBFloat16;
    case RowFormat::kFloat32:
      return DType::kFloat32;
    case RowFormat::kInt8:
      return DType::kInt8;
  }
  throw ConfigError("cache.rows: unknown format");
}

RowChoice row_choice(const RunOptions& options) {
  return {.max_tokens = options.cache.max_tokens,
          .tokens_per_sequence = options.cache.tokens_per_sequence,
          .drop_first_positions = options.cache.drop_first_positions,
          .seed = options.train.seed};
}

/// What the bytes of a cache depend on besides its format, as the option table shows it.
Provenance provenance(const RunOptions& options, FileSystem& files) {
  Provenance facts = {{"base", model_fingerprint(options.model.base)},
                      {"target", model_fingerprint(options.model.target)},
                      {"tokenizer", hex(Tokenizer::load(files, options.model.target).fingerprint())}};
  if (files.exists(options.corpus.train)) facts["corpus"] = file_hash(files, options.corpus.train);
  for (const char* key : {"model.compute", "corpus.format", "corpus.max_sequence_tokens", "cache.max_tokens",
                          "cache.tokens_per_sequence", "cache.drop_first_positions"})
    facts[key] = find_option(key)->value(options).dump();
  // The seed draws positions; without subsampling it changes nothing, and other seeds may share the cache.
  if (options.cache.tokens_per_sequence > 0) facts["train.seed"] = std::to_string(options.train.seed);
  return facts;
}

std::vector<std::int64_t> sequence_lengths(const TokenDataset& corpus) {
  std::vector<std::int64_t> lengths;
  for (std::int64_t i = 0; i < corpus.size(); ++i)
    lengths.push_back(static_cast<std::int64_t>(corpus.sequence(i).ids.size()));
  return lengths;
}

}  // namespace

CaptureIdentity cache_identity(const RunOptions& options, FileSystem& files) {
  const DecoderConfig base = load_decoder_config(files, options.model.base);
  const DecoderConfig target = load_decoder_config(files, options.model.target);
  require_same_mlp_shapes(base, target);
  return {.directory = cache_directory(options),
          .format = {.layers = parse_layers(options.layers, target.layers),
                     .width = target.width,
                     .row_dtype = cached_dtype(options.cache.rows),
                     .chunk_bytes = options.cache.chunk_bytes,
                     .sequences_per_shard = options.cache.sequences_per_shard},
          .provenance = provenance(options, files)};
}

TokenDataset load_corpus(const RunOptions& options, const std::filesystem::path& file,
                         const RunEnvironment& environment) {
  environment.heartbeat("tokenising " + file.string());
  const Tokenizer tokenizer = Tokenizer::load(environment.files, options.model.target);
  return TokenDataset::build(environment.files, file, tokenizer,
                             {.format = options.corpus.format,
                              .max_tokens = options.corpus.max_sequence_tokens,
                              .threads = environment.context.threads()});
}

CacheCapture::CacheCapture(const RunOptions& options, const RunEnvironment& environment,
                           const CaptureIdentity& identity)
    : options_(options),
      environment_(environment),
      identity_(identity),
      target_(load_decoder_config(environment.files, options.model.target)),
      corpus_(load_corpus(options, options.corpus.train, environment)),
      plan_(plan_capture({.target = target_,
                          .lengths = sequence_lengths(corpus_),
                          .format = identity.format,
                          .rows = row_choice(options),
                          .compute = options.model.compute})) {}

CaptureOutcome CacheCapture::run() {
  environment_.heartbeat("loading models");
  const Decoder pair = Decoder::load_pair(environment_.context, environment_.files, options_.model.target,
                                          options_.model.base, options_.model.compute);
  ProgressReport progress("capture", "rows", plan_.rows, 0, options_.log.every_seconds, environment_.print);
  return tadapt::capture({.files = environment_.files,
                          .ranks = environment_.world,
                          .context = environment_.context,
                          .pair = pair,
                          .plan = plan_,
                          .directory = identity_.directory,
                          .provenance = identity_.provenance,
                          .tokens = [&](std::int64_t sequence) { return corpus_.sequence(sequence).ids; },
                          .stop_requested = environment_.stop_requested,
                          .progress =
                              [&](const CaptureProgress& rows) {
                                environment_.heartbeat("capture");
                                progress.update(rows.rows_done);
                              }});
}

std::string describe(const CapturePlan& plan) {
  const auto disk = static_cast<std::int64_t>(plan.size.shard_bytes + plan.size.listing_bytes);
  const auto models = static_cast<std::int64_t>(plan.model_memory_bytes);
  const auto shard = static_cast<std::int64_t>(plan.shard_memory_bytes);
  return fmt::format(
      "{} rows of {} layers from {} sequences in {} shards: {} on disk ({} bytes of rows), {} of memory per rank: "
      "models {}, largest shard {}; {:.3g} FLOP{}",
      plan.rows, plan.format.layers.size(), plan.sequences.size(), plan.shards(), readable_bytes(disk),
      plan.size.shard_bytes, readable_bytes(models + shard), readable_bytes(models), readable_bytes(shard), plan.flops,
      memory_warning("capture", models + shard, host_memory_bytes()));
}

CaptureOutcome prepare_cache(const RunOptions& options, const RunEnvironment& environment,
                             const CaptureIdentity& identity, const std::function<void(const CapturePlan&)>& approve) {
  if (capture_is_complete(environment.files, environment.world, identity)) return CaptureOutcome::kDone;
  std::unique_ptr<CacheCapture> job;
  agree(environment.world, [&] {
    job = std::make_unique<CacheCapture>(options, environment, identity);
    if (approve) approve(job->plan());
  });
  environment.print(fmt::format("capture: {}: {}", identity.directory.string(), describe(job->plan())));
  std::unique_ptr<FileLock> lock;
  on_rank_zero(environment.world, [&] {
    environment.files.make_directories(identity.directory);
    lock = environment.files.lock(identity.directory / kCaptureLock, environment.who);
    return std::string();
  });
  return job->run();
}

}  // namespace tadapt

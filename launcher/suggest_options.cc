#include "launcher/suggest_options.h"

#include <algorithm>
#include <bit>
#include <numeric>

#include "data/corpus.h"
#include "data/tokenizer.h"
#include "runtime/model/decoder.h"
#include "runtime/train/run_shape.h"

namespace tadapt {
namespace {

constexpr std::int64_t kSampleBytes = 1 << 20;       // of the corpus
constexpr std::int64_t kShardBytes = 4'000'000'000;  // of memory, at most
constexpr std::int64_t kShardsAtLeast = 16;          // so that the held-out one is a small part
constexpr std::int64_t kSequencesAtLeast = 64;       // when the disk holds a part of the corpus only
constexpr std::int64_t kStepsAtLeast = 100;          // in a pass over the rows
constexpr std::int64_t kFewestBatchTokens = 512;

/// The chat format whose markers the tokenizer knows.
ChatFormat format_of(const Tokenizer& tokenizer) {
  if (tokenizer.id_of("<｜User｜>")) return ChatFormat::kDeepseek;
  return tokenizer.id_of("<|im_start|>") ? ChatFormat::kQwen : ChatFormat::kPlain;
}

/// A power of two of about 2 D to 4 D: at width 3584 the published 8192.
std::int64_t features_for(std::int64_t width) {
  return static_cast<std::int64_t>(std::bit_ceil(static_cast<std::uint64_t>(2 * width)));
}

struct CorpusSize {
  std::int64_t sequences = 0;
  std::int64_t tokens_each = 0;  ///< on average
};

/// The size of a corpus by its first lines.
CorpusSize estimate_corpus(FileSystem& files, const RunOptions& options, const Tokenizer& tokenizer) {
  const ChatRenderer renderer(options.corpus.format, tokenizer);
  TokenEncoder encoder(tokenizer);
  CorpusReader reader(files, options.corpus.train);
  std::int64_t lines = 0, tokens = 0;
  for (CorpusLine line; static_cast<std::int64_t>(reader.bytes_read()) < kSampleBytes && reader.next(line); ++lines) {
    std::vector<std::int32_t> ids;
    encoder.encode(renderer.render(parse_conversation(line, reader.path()).turns).text, ids);
    tokens += std::min(static_cast<std::int64_t>(ids.size()), options.corpus.max_sequence_tokens);
  }
  const double share = static_cast<double>(reader.bytes_read()) / static_cast<double>(reader.bytes());
  return {.sequences = static_cast<std::int64_t>(static_cast<double>(lines) / share),
          .tokens_each = std::max<std::int64_t>(1, tokens / lines)};
}

/// Rows of x and Δ that the disk takes beside the checkpoints, half of it left free.
std::int64_t rows_on_disk(const RunOptions& options, const DecoderConfig& target, std::uint64_t free_disk_bytes) {
  const auto free = static_cast<std::int64_t>(std::min<std::uint64_t>(free_disk_bytes, INT64_MAX));
  const std::int64_t checkpoints = checkpoints_on_disk_bytes(
      checkpoint_bytes(target.layers, target.width, options.adapter.features), options.checkpoint.keep);
  const std::int64_t row_bytes = 2 * target.layers * target.width * static_cast<std::int64_t>(sizeof(bfloat16));
  return std::max<std::int64_t>(1, (free > checkpoints ? free - checkpoints : free) / 2 / row_bytes);
}

/// Rows of a shard that fit into a rank's memory beside the models.
std::int64_t rows_in_memory(const DecoderConfig& target, std::int64_t memory) {
  // x and Δ of a row in fp32, and its image in the file.
  const std::int64_t row_bytes =
      2 * target.layers * target.width * static_cast<std::int64_t>(sizeof(float) + sizeof(bfloat16));
  const std::int64_t beside_models = memory - static_cast<std::int64_t>(pair_memory_bytes(target, DType::kBFloat16));
  const std::int64_t budget = std::min(std::max(beside_models / 4, memory / 64), kShardBytes);
  return std::max<std::int64_t>(1, budget / row_bytes);
}

/// What is kept of the corpus, and in which pieces. Returns its rows.
std::int64_t choose_rows(RunOptions& options, const DecoderConfig& target, CorpusSize kept, const HostResources& host) {
  const std::int64_t in_memory = rows_in_memory(target, static_cast<std::int64_t>(host.memory_bytes));
  const std::int64_t on_disk = rows_on_disk(options, target, host.free_disk_bytes);
  std::int64_t of_each = std::min(kept.tokens_each, in_memory);
  if (kept.sequences * of_each > on_disk) {
    options.cache.max_tokens = on_disk;
    of_each = std::min(of_each, on_disk / std::min(kept.sequences, kSequencesAtLeast));
  }
  of_each = std::max<std::int64_t>(of_each, 1);
  if (of_each < kept.tokens_each) options.cache.tokens_per_sequence = of_each;
  const std::int64_t rows = std::min(kept.sequences * of_each, on_disk);
  options.cache.sequences_per_shard = std::clamp<std::int64_t>(
      std::min(in_memory / of_each, rows / of_each / kShardsAtLeast), 1, CacheOptions{}.sequences_per_shard);
  return rows;
}

/// Batches shrink, and the windows they are drawn from with them, until loading fits and there are steps enough.
void choose_batch(RunOptions& options, const DecoderConfig& target, std::int64_t rows, std::int64_t memory) {
  RunShape shape{.layers = std::vector<int>(static_cast<std::size_t>(target.layers)),
                 .width = target.width,
                 .dictionaries = {options.adapter.features}};
  std::iota(shape.layers.begin(), shape.layers.end(), 0);
  shape.train_rows = rows;
  const ProcessGrid alone({.blocks = 1, .data_parallel = 1}, shape.layers);
  const auto is_too_large = [&] {
    const MemoryEstimate needed = run_memory(options, shape, alone);
    return needed.loader + needed.batch > memory / 4 || options.train.batch_tokens > rows / kStepsAtLeast;
  };
  while (options.train.batch_tokens / 2 >= kFewestBatchTokens && is_too_large()) {
    options.train.batch_tokens /= 2;
    options.train.window_tokens /= 2;
  }
}

}  // namespace

RunOptions suggest_options(FileSystem& files, const RunOptions& inputs, const HostResources& host) {
  const DecoderConfig target = load_decoder_config(files, inputs.model.target);
  require_same_mlp_shapes(load_decoder_config(files, inputs.model.base), target);
  const Tokenizer tokenizer = Tokenizer::load(files, inputs.model.target);
  RunOptions options = inputs;
  options.corpus.format = format_of(tokenizer);
  options.corpus.max_sequence_tokens = std::min(options.corpus.max_sequence_tokens, target.max_positions);
  options.adapter.features = features_for(target.width);
  const std::int64_t rows = choose_rows(options, target, estimate_corpus(files, options, tokenizer), host);
  choose_batch(options, target, rows, static_cast<std::int64_t>(host.memory_bytes));
  return options;
}

}  // namespace tadapt

// What init writes for large and small models, on hosts of any size.
#include "launcher/suggest_options.h"

#include <gtest/gtest.h>

#include "runtime/capture/capture_plan.h"
#include "runtime/train/run_shape.h"
#include "tests/support/temporary_directory.h"
#include "tests/support/tiny_models.h"

namespace tadapt {
namespace {
namespace fs = std::filesystem;

class SuggestOptions : public ::testing::Test {
 protected:
  /// Options for models of these sizes (config.json is all that is read of them) and the toy corpus.
  RunOptions suggest(const testing::TinyModel& model, const HostResources& host) {
    for (const char* name : {"base", "target"}) {
      files_.make_directories(folder_ / name);
      write_atomically(files_, folder_ / name / "config.json", testing::tiny_config(model));
      for (const char* file : {"tokenizer.json", "tokenizer_config.json"})
        fs::copy_file(toy_ / "target" / file, folder_ / name / file, fs::copy_options::overwrite_existing);
    }
    RunOptions inputs;
    inputs.model = {.base = folder_ / "base", .target = folder_ / "target"};
    inputs.corpus.train = toy_ / "train.jsonl";
    return suggest_options(files_, inputs, host);
  }

  const fs::path toy_ = fs::path(TADAPT_SOURCE_DIR) / "data/toy";
  RealFileSystem files_;
  testing::TemporaryDirectory folder_;
  const testing::TinyModel seven_{.layers = 28,
                                  .width = 3584,
                                  .mlp_width = 18944,
                                  .heads = 28,
                                  .kv_heads = 4,
                                  .vocabulary = 152064,
                                  .max_positions = 131072};
};

TEST_F(SuggestOptions, SevenBillionParametersOnASmallDisk) {
  constexpr std::uint64_t kDisk = 200'000'000'000, kMemory = 128'000'000'000;
  const RunOptions options = suggest(seven_, {.free_disk_bytes = kDisk, .memory_bytes = kMemory});
  const DecoderConfig target = load_decoder_config(files_, options.model.target);
  EXPECT_EQ(options.adapter.features, 8192);
  // A plan with sequences of 200 tokens, such as the corpus has.
  const std::vector<std::int64_t> lengths(10000, 200);
  std::vector<int> layers;
  for (int layer = 0; layer < target.layers; ++layer) layers.push_back(layer);
  const CapturePlan plan = plan_capture(
      {.target = target,
       .lengths = lengths,
       .format = {.layers = layers, .width = target.width, .sequences_per_shard = options.cache.sequences_per_shard},
       .rows = {.max_tokens = options.cache.max_tokens, .tokens_per_sequence = options.cache.tokens_per_sequence}});
  const std::int64_t checkpoints = checkpoints_on_disk_bytes(checkpoint_bytes(28, 3584, 8192), options.checkpoint.keep);
  EXPECT_LT(static_cast<std::int64_t>(plan.size.shard_bytes) + checkpoints, static_cast<std::int64_t>(kDisk));
  EXPECT_LT(plan.shard_memory_bytes + plan.model_memory_bytes, kMemory / 2);
  const RunShape shape = run_shape(options, plan.format, plan.rows_per_shard);
  EXPECT_EQ(shape.held_out_shards, 1);
  EXPECT_LT(shape.shards * shape.held_out_rows, 4 * (shape.train_rows + shape.held_out_rows));
  EXPECT_GE(shape.steps, 50);
  EXPECT_LT(run_memory(options, shape, run_grid(options, shape, 1)).total(), static_cast<std::int64_t>(kMemory));
}

TEST_F(SuggestOptions, SmallModelsKeepTheDefaults) {
  const RunOptions options = suggest({}, {.free_disk_bytes = 1ull << 40, .memory_bytes = 1ull << 36});
  EXPECT_EQ(options.cache.max_tokens, 0);
  EXPECT_EQ(options.corpus.max_sequence_tokens, 512);
  EXPECT_GT(options.train.batch_tokens, 256);
}

TEST_F(SuggestOptions, HostsOfNoSizeGiveOptionsAllTheSame) {
  const RunOptions options = suggest(seven_, {.free_disk_bytes = 1, .memory_bytes = 1});
  EXPECT_EQ(options.cache.max_tokens, 1);
  EXPECT_EQ(options.cache.sequences_per_shard, 1);
  EXPECT_EQ(options.train.batch_tokens, 512);
}

}  // namespace
}  // namespace tadapt

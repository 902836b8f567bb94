// Sizes of a run before anything is allocated.
#include "runtime/train/run_shape.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/errors.h"

namespace tadapt {
namespace {

std::int64_t loader_bytes(RowOrder order, DType rows) {
  RunOptions options;
  options.train.batch_tokens = 64;
  options.train.reduction_leaves = 1;
  options.train.window_tokens = 1000;
  options.train.order = order;
  const RunShape shape{.layers = {0, 3},
                       .width = 8,
                       .dictionaries = {options.adapter.features},
                       .row_dtype = rows,
                       .train_rows = 5000,
                       .steps = 1};
  return run_memory(options, shape, run_grid(options, shape, 1)).loader;
}

TEST(RunShape, LoaderMemoryFollowsOrderAndRows) {
  constexpr std::int64_t kBatchBytes = 2 * 2 * 64 * 8 * 2;                         // layers, x and Δ, rows, D, bf16
  EXPECT_EQ(loader_bytes(RowOrder::kWindow, DType::kBFloat16), 33 * kBatchBytes);  // 1 + ceil(2 · 1000 / 64)
  EXPECT_EQ(loader_bytes(RowOrder::kWindow, DType::kFloat32), 66 * kBatchBytes);
  constexpr std::int64_t kChecksumBytes = 2 * 2 * 5000 * 4;  // layers, x and Δ, rows, CRC32C
  EXPECT_EQ(loader_bytes(RowOrder::kGlobal, DType::kBFloat16), 3 * kBatchBytes + kChecksumBytes);
}

TEST(RunShape, StreamedRowsNeedModelsAWindowAndTheRowsUnderWay) {
  RunOptions options;
  options.cache.source = RowSource::kStream;
  options.train.batch_tokens = 64;
  options.train.reduction_leaves = 8;
  options.train.window_tokens = 1000;
  options.train.held_out_tokens = 1000;
  options.cache.held_out_shards = 1;
  CapturePlan plan;
  plan.format = {.layers = {0, 3}, .width = 8, .row_dtype = DType::kInt8};
  plan.rows_per_shard = {5000, 50};
  plan.sequences = {{.rows = 5000, .tokens = 5000}, {.rows = 50, .tokens = 60}};
  plan.rows = 5050;
  plan.model_memory_bytes = 777;
  const RunShape shape = run_shape(options, plan);
  EXPECT_EQ(shape.most_batch_rows, 5050);
  const MemoryEstimate memory = run_memory(options, shape, ProcessGrid({.blocks = 1, .data_parallel = 2}, {0, 3}));
  EXPECT_EQ(memory.frozen_weights, 777);
  constexpr std::int64_t kRowNumbers = 2 * 2 * 8;     // layers, x and Δ, D
  constexpr std::int64_t kWindow = (1 + 16) * 32;     // 1 + ceil(1000 / 64) batches, half of each on a rank
  constexpr std::int64_t kHeldOut = 4 * 8;            // ceil(50 / 8) pieces, of which a rank has four
  constexpr std::int64_t kUnderWay = 5050 * (4 + 8);  // made in fp32, sent and received as they are handed out
  EXPECT_EQ(memory.loader, kRowNumbers * (4 * (kWindow + kHeldOut) + kUnderWay));
  EXPECT_EQ(memory.on_device(), memory.total() - memory.loader - memory.held);
}

TEST(RunShape, StreamedRowsHaveAnOrderOfWindows) {
  RunOptions options;
  options.train.order = RowOrder::kGlobal;
  require_servable_order(options);
  options.cache.source = RowSource::kStream;
  EXPECT_ERROR(require_servable_order(options), ConfigError,
               ::testing::AllOf(::testing::HasSubstr("train.order"), ::testing::HasSubstr("cache.source")));
  options.train.order = RowOrder::kWindow;
  require_servable_order(options);
}

TEST(RunShape, KeepsAtLeastOneShardToTrainOn) {
  RunOptions options;
  options.cache.held_out_shards = 5;
  options.train.held_out_tokens = 150;
  const CacheFormat format{.layers = {0}, .width = 4};
  EXPECT_EQ(run_shape(options, format, {100}).train_rows, 100);
  const RunShape three = run_shape(options, format, {100, 90, 80});
  EXPECT_EQ(three.train_rows, 100);
  EXPECT_EQ(three.held_out_rows, 150);
  EXPECT_THROW(run_shape(options, format, {}), ConfigError);
}

TEST(RunShape, RefusesMoreStepsThanCanBeCounted) {
  const CacheFormat format{.layers = {0}, .width = 4};
  RunOptions options;
  options.train.epochs = 1e18;
  EXPECT_ERROR(run_shape(options, format, {100, 100}), ConfigError, ::testing::HasSubstr("train.epochs"));
  options.train.steps = std::int64_t{1} << 40;
  EXPECT_EQ(run_shape(options, format, {100, 100}).steps, options.train.steps);
  options.train.batch_tokens = std::int64_t{1} << 30;
  EXPECT_ERROR(run_shape(options, format, {100, 100}), ConfigError, ::testing::HasSubstr("train.steps"));
}

TEST(RunShape, RefusesLeavesWhosePairsCannotBeCounted) {
  const CacheFormat format{.layers = {0}, .width = 4};
  RunOptions options;
  options.adapter.features = 65536;
  options.train.batch_tokens = 65536;
  options.train.reduction_leaves = 4;
  EXPECT_EQ(run_shape(options, format, {100, 100}).train_rows, 100);
  options.train.reduction_leaves = 1;
  EXPECT_ERROR(run_shape(options, format, {100, 100}), ConfigError, ::testing::HasSubstr("train.reduction_leaves"));
  options.adapter.sparse_below = 0.0;
  EXPECT_EQ(run_shape(options, format, {100, 100}).train_rows, 100);
}

TEST(RunShape, SaysWhenARankNeedsMoreMemoryThanTheHostHas) {
  RunOptions options;
  const RunShape small{
      .layers = {0}, .width = 8, .dictionaries = {options.adapter.features}, .train_rows = 100000, .steps = 1};
  EXPECT_THAT(describe(options, small, run_grid(options, small, 1)), ::testing::Not(::testing::HasSubstr("WARNING")));
  options.adapter.features = 1 << 24;
  const RunShape large{
      .layers = {0}, .width = 1 << 20, .dictionaries = {options.adapter.features}, .train_rows = 100000, .steps = 1};
  EXPECT_THAT(describe(options, large, run_grid(options, large, 1)), ::testing::HasSubstr("\nWARNING: a rank needs "));
}

}  // namespace
}  // namespace tadapt

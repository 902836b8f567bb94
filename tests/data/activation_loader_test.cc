// ActivationLoader: each rank gets its part of each batch, each row once per epoch, whatever the timing.
#include "data/activation_loader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <set>

#include "tests/support/errors.h"
#include "tests/support/example_cache.h"
#include "tests/support/temporary_directory.h"

namespace tadapt {
namespace {
using ::testing::AllOf;
using testing::element;
using testing::ExampleCache;
using ::testing::HasSubstr;
using testing::TemporaryDirectory;

class ActivationLoaderTest : public ::testing::TestWithParam<DType> {
 protected:
  void SetUp() override { example_.write(files_, folder_.path()); }

  /// Rows of `batches` batches as samples say they should be, each number checked; returns the sample numbers.
  std::vector<std::int64_t> check_batches(const DataOrder& order, const LoaderOptions& options, int batches) {
    const ActivationCacheReader cache(files_, folder_.path());
    ActivationLoader loader(cache, order, options);
    std::vector<std::int64_t> samples;
    for (int i = 0; i < batches; ++i) {
      const ActivationBatch& batch = loader.next();
      EXPECT_EQ(batch.first_sample,
                options.slice.first_sample + i * options.slice.batch_rows + options.slice.slice_begin);
      EXPECT_EQ(batch.layers.size(), options.layers.size());
      const auto rows = order.rows_of(batch.first_sample, batch.first_sample + options.slice.rows());
      for (std::size_t layer = 0; layer < batch.layers.size(); ++layer) {
        check_rows(options.layers[layer], batch.layers[layer], rows);
      }
      for (std::int64_t r = 0; r < options.slice.rows(); ++r) samples.push_back(batch.first_sample + r);
    }
    EXPECT_LE(loader.allocated_bytes(), loader_memory_bytes(cache.manifest().format, order, options));
    return samples;
  }

  void check_rows(int layer, const ActivationBatch::Layer& tensors, const std::vector<std::int64_t>& rows) {
    ASSERT_EQ(tensors.x.shape(), Shape({static_cast<std::int64_t>(rows.size()), example_.format().width}));
    for (std::int64_t i = 0; i < tensors.x.size(0); ++i) {
      const std::int64_t row = rows[static_cast<std::size_t>(i)];
      for (std::int64_t d = 0; d < tensors.x.size(1); ++d) {
        ASSERT_EQ(element(tensors.x, i, d), example_.stored_value(layer, RowKind::kInput, row, d)) << row;
        ASSERT_EQ(element(tensors.delta, i, d), example_.stored_value(layer, RowKind::kDelta, row, d)) << row;
      }
    }
  }

  RealFileSystem files_;
  TemporaryDirectory folder_;
  const ExampleCache example_{
      {.layers = {0, 2, 5}, .width = 6, .row_dtype = GetParam(), .chunk_bytes = 120, .sequences_per_shard = 2},
      {25, 0, 9, 11, 0, 0, 31, 14, 3, 1}};  // 94 rows
};

TEST_P(ActivationLoaderTest, BatchesHoldTheRowsOfTheirSamples) {
  for (const DataOrder& order : {DataOrder::window(80, 13, 1), DataOrder::window(94, 500, 1),
                                 DataOrder::window(3, 2, 1), DataOrder::global(91, 1)}) {
    for (const std::int64_t batch_rows : {1, 7, 40, 200}) {
      check_batches(order, {{5, 0}, {batch_rows, 0, batch_rows, 0}, 2}, batch_rows < 10 ? 30 : 5);
    }
  }
}

TEST_P(ActivationLoaderTest, SlicesTogetherVisitEachRowOncePerEpoch) {
  for (const DataOrder& order : {DataOrder::window(84, 20, 2), DataOrder::global(84, 2)}) {
    for (const std::int64_t ranks : {1, 2, 4}) {
      constexpr std::int64_t kBatchRows = 12;  // 7 batches are an epoch
      std::set<std::int64_t> rows;
      for (std::int64_t rank = 0; rank < ranks; ++rank) {
        const std::int64_t part = kBatchRows / ranks;
        const BatchSlice slice{kBatchRows, rank * part, (rank + 1) * part, 0};
        for (const std::int64_t sample : check_batches(order, {{2}, slice, 1}, 7)) {
          EXPECT_TRUE(rows.insert(order.rows_of(sample, sample + 1)[0]).second) << sample;
        }
      }
      EXPECT_EQ(rows.size(), 84u);
    }
  }
}

TEST_P(ActivationLoaderTest, GoesOnFromAnySample) {
  for (const std::int64_t first : {1, 36, 79, 80, 94, 200}) {
    check_batches(DataOrder::window(80, 13, 1), {{0}, {12, 4, 8, first}, 2}, 9);
    check_batches(DataOrder::global(80, 1), {{0}, {12, 4, 8, first}, 3}, 9);
  }
}

TEST_P(ActivationLoaderTest, EmptySliceGetsEmptyTensors) {
  check_batches(DataOrder::window(80, 13, 1), {{0, 2}, {12, 5, 5, 0}, 2}, 20);
  check_batches(DataOrder::window(80, 13, 1), {{}, {12, 0, 12, 0}, 2}, 20);
}

TEST_P(ActivationLoaderTest, DamagedChunkIsRethrownByNextEveryTime) {
  const CacheManifest manifest = ActivationCacheReader(files_, folder_.path()).manifest();
  const CacheDataset& dataset = manifest.shards[1].datasets[dataset_index(manifest.format, 1, LayerColumn::kInput)];
  const std::byte junk{0x5a};
  files_.open(folder_ / shard_file_name(1), OpenMode::kReadWrite)->write(dataset.chunks[0].offset + 1, {&junk, 1});
  const ActivationCacheReader cache(files_, folder_.path());
  for (const DataOrder& order : {DataOrder::window(94, 10, 1), DataOrder::global(94, 1)}) {
    ActivationLoader loader(cache, order, {{0, 2}, {10, 0, 10, 0}, 2});
    const auto until_failure = [&] {
      for (int i = 0; i < 20; ++i) loader.next();
    };
    const auto named = AllOf(HasSubstr("shard-000001.h5: layers/2/mlp_in chunk 0"), HasSubstr("token rows 25 to "));
    EXPECT_ERROR(until_failure(), DataError, named);
    EXPECT_ERROR(loader.next(), DataError, named);
    // The layer without damage is not concerned.
    ActivationLoader other(cache, order, {{0}, {10, 0, 10, 0}, 2});
    for (int i = 0; i < 20; ++i) other.next();
  }
}

TEST_P(ActivationLoaderTest, DamageAfterAChunkWasCheckedIsSeenToo) {
  const ActivationCacheReader cache(files_, folder_.path());
  const CacheDataset& dataset =
      cache.manifest().shards[1].datasets[dataset_index(cache.manifest().format, 1, LayerColumn::kInput)];
  for (const DataOrder& order : {DataOrder::window(94, 10, 1), DataOrder::global(94, 1)}) {
    ActivationLoader loader(cache, order, {{2}, {1, 0, 1, 0}, 2});  // batches of one row: chunks are read by rows
    const auto epoch = [&] {
      for (int i = 0; i < 94; ++i) loader.next();
    };
    epoch();
    const auto file = files_.open(folder_ / shard_file_name(1), OpenMode::kReadWrite);
    std::byte content{};
    file->read(dataset.chunks[0].offset + 1, {&content, 1});
    const std::byte junk = content ^ std::byte{0x10};
    file->write(dataset.chunks[0].offset + 1, {&junk, 1});
    EXPECT_ERROR((epoch(), epoch()), DataError, HasSubstr("shard-000001.h5: layers/2/mlp_in chunk 0"));
    file->write(dataset.chunks[0].offset + 1, {&content, 1});
  }
}

TEST_P(ActivationLoaderTest, EndsCleanlyAtAnyTime) {
  const ActivationCacheReader cache(files_, folder_.path());
  for (int batches = 0; batches < 30; ++batches) {
    ActivationLoader loader(cache, DataOrder::window(94, 40, 1), {{0, 2, 5}, {8, 0, 8, 0}, 3});
    for (int i = 0; i < batches % 7; ++i) loader.next();
    EXPECT_GE(loader.stall_seconds(), 0.0);
  }
}

TEST_P(ActivationLoaderTest, WhatTheCacheLacksIsNamed) {
  const ActivationCacheReader cache(files_, folder_.path());
  EXPECT_ERROR(ActivationLoader(cache, DataOrder::global(95, 1), {{0}, {8, 0, 8, 0}, 1}), ConfigError,
               HasSubstr("95 rows to train on, the cache holds 94"));
  EXPECT_ERROR(ActivationLoader(cache, DataOrder::global(94, 1), {{1}, {8, 0, 8, 0}, 1}), DataError,
               HasSubstr("layer 1"));
  EXPECT_ERROR(ActivationLoader(cache, DataOrder::global(94, 1), {{0}, {8, 4, 9, 0}, 1}), ShapeError,
               HasSubstr("[4, 9)"));
}

INSTANTIATE_TEST_SUITE_P(RowFormats, ActivationLoaderTest,
                         ::testing::Values(DType::kBFloat16, DType::kFloat32, DType::kInt8),
                         [](const auto& instance) { return std::string(name(instance.param)); });

}  // namespace
}  // namespace tadapt

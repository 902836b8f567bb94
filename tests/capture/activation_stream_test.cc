// Streams: the batches of a loader over the cache, bit for bit, on any grid; and how the work is cut.
#include "runtime/capture/activation_stream.h"

#include "data/activation_loader.h"
#include "tests/capture/capture_fixture.h"
#include "tests/support/temporary_directory.h"
#include "tests/support/thread_communicator.h"

namespace tadapt {
namespace {

using testing::CaptureSetup;
using testing::TinyCapture;

constexpr std::int64_t kBatchRows = 64;

std::string bytes_of(const Tensor& tensor) { return {static_cast<const char*>(tensor.data()), tensor.bytes()}; }

std::string bytes_of(const ActivationBatch& batch) {
  std::string bytes = std::to_string(batch.first_sample);
  for (const ActivationBatch::Layer& layer : batch.layers) bytes += bytes_of(layer.x) + bytes_of(layer.delta);
  return bytes;
}

BatchSlice slice_of(const ProcessGrid& grid, int rank, std::int64_t first_sample) {
  const std::int64_t share = kBatchRows / grid.data_parallel(), place = grid.index_of(rank);
  return {.batch_rows = kBatchRows,
          .slice_begin = place * share,
          .slice_end = (place + 1) * share,
          .first_sample = first_sample};
}

std::vector<std::string> next_batches(ActivationSource& source, int count) {
  std::vector<std::string> batches;
  for (int i = 0; i < count; ++i) batches.push_back(bytes_of(source.next()));
  return batches;
}

class ActivationStreamTest : public ::testing::Test {
 protected:
  ActivationStreamTest() { testing::write_pair(directory_.path()); }

  /// What a test asks of a feed on one rank.
  using Body = std::function<void(Communicator&, const ProcessGrid&, RowFeed&)>;
  void on_ranks(const CaptureSetup& setup, GridShape shape, const Body& body) {
    testing::run_ranks(shape.blocks * shape.data_parallel, [&](Communicator& world) {
      const TinyCapture made(directory_.path(), setup);
      Context context = Context::cpu(1);
      RealFileSystem files;
      const Decoder pair =
          Decoder::load_pair(context, files, directory_ / "target", directory_ / "base", setup.compute);
      const ProcessGrid grid(shape, setup.format.layers);
      RowFeed feed({.world = world,
                    .grid = grid,
                    .context = context,
                    .pair = pair,
                    .plan = made.plan(),
                    .tokens = [&](std::int64_t i) { return std::span(made.corpus()[static_cast<std::size_t>(i)]); }});
      body(world, grid, feed);
    });
  }

  /// Batches from sample `first` on are the cache's, as are scales and the last rows.
  void expect_rows_of_cache(const CaptureSetup& setup, GridShape shape, std::int64_t window_rows, std::int64_t first) {
    const std::filesystem::path out = directory_ / "cache";
    std::filesystem::remove_all(out);
    ASSERT_EQ(TinyCapture(directory_.path(), setup).run(out), CaptureOutcome::kDone);
    const ActivationCacheReader cache(files_, out);
    const std::int64_t rows = cache.rows() - 100;
    const DataOrder order = DataOrder::window(rows, window_rows, 5);
    const int batches = static_cast<int>((rows + 3 * window_rows) / kBatchRows);  // into the second epoch
    on_ranks(setup, shape, [&](Communicator& world, const ProcessGrid& grid, RowFeed& feed) {
      const std::vector<int> layers = grid.layers_of_block(grid.block_of(world.rank()));
      const BatchSlice slice = slice_of(grid, world.rank(), first);
      ActivationLoader loader(cache, order, {.layers = layers, .slice = slice});
      ActivationStream stream(feed, order, slice);
      EXPECT_EQ(next_batches(stream, batches), next_batches(loader, batches));
      EXPECT_GT(stream.stall_seconds(), 0.0);
      const auto scales = feed.scale_squares();
      for (std::size_t i = 0; i < setup.format.layers.size(); ++i)
        EXPECT_EQ(scales.value()[i], cache.manifest().layers[i].scale_square);
      expect_kept_rows(cache, feed, rows, shape.data_parallel);
    });
  }

  /// Of rows [begin, N), owned in pieces of 20 by the members of a group in turn.
  static void expect_kept_rows(const ActivationCacheReader& cache, RowFeed& feed, std::int64_t begin, int members) {
    constexpr std::int64_t kPiece = 20;
    std::vector<int> owners(static_cast<std::size_t>(cache.rows() - begin));
    for (std::size_t i = 0; i < owners.size(); ++i) owners[i] = static_cast<int>(i / kPiece) % members;
    const auto kept = KeptRows::make(feed, begin, owners, [] { return false; });
    std::vector<float> expected(2 * kPiece * 24), found(expected);
    const auto tensors = [&](std::vector<float>& memory, std::int64_t rows) {
      return std::pair(Tensor(memory.data(), cache.row_dtype(), {rows, 24}),
                       Tensor(memory.data() + kPiece * 24, cache.row_dtype(), {rows, 24}));
    };
    for (std::int64_t row = begin; row < cache.rows(); row += kPiece) {
      const std::int64_t end = std::min(row + kPiece, cache.rows());
      const auto [x, delta] = tensors(found, end - row);
      const int layer = feed.layers().back();
      if (owners[static_cast<std::size_t>(row - begin)] != feed.member()) {
        EXPECT_THROW(kept->read_rows(layer, row, end, x, delta), ShapeError);
        continue;
      }
      const auto [expected_x, expected_delta] = tensors(expected, end - row);
      cache.read_rows(layer, row, end, expected_x, expected_delta);
      kept->read_rows(layer, row, end, x, delta);
      EXPECT_EQ(found, expected);
    }
  }

  testing::TemporaryDirectory directory_;
  RealFileSystem files_;
};

TEST_F(ActivationStreamTest, GivesWhatTheCacheGivesOnAnyGrid) {
  for (const GridShape shape : {GridShape{1, 1}, GridShape{2, 1}, GridShape{1, 2}, GridShape{2, 2}, GridShape{1, 4}})
    expect_rows_of_cache({}, shape, 500, 0);
}

TEST_F(ActivationStreamTest, GivesWhatTheCacheGivesInAnyFormat) {
  for (const DType rows : {DType::kBFloat16, DType::kInt8}) {
    CaptureSetup setup;
    setup.format.row_dtype = rows;
    expect_rows_of_cache(setup, {1, 2}, 300, 0);
  }
}

TEST_F(ActivationStreamTest, GivesWhatTheCacheGivesOfChosenRows) {
  CaptureSetup setup;
  setup.rows = {.max_tokens = 700, .tokens_per_sequence = 40, .drop_first_positions = 3, .seed = 9};
  setup.compute = DType::kBFloat16;
  expect_rows_of_cache(setup, {2, 2}, 130, 0);
}

TEST_F(ActivationStreamTest, BeginsInsideAWindowAndSpansWindowsSmallerThanABatch) {
  expect_rows_of_cache({}, {1, 2}, 500, 5 * kBatchRows);
  expect_rows_of_cache({}, {2, 1}, 50, 3 * kBatchRows);
}

TEST_F(ActivationStreamTest, AStopOfOneRankEndsTheMakingForAll) {
  on_ranks({}, {1, 2}, [](Communicator& world, const ProcessGrid&, RowFeed& feed) {
    const auto stop = [&] { return world.rank() == 1; };
    EXPECT_FALSE(feed.scale_squares(stop).has_value());
    EXPECT_EQ(KeptRows::make(feed, 0, std::vector<int>(100, 0), stop), nullptr);
  });
}

TEST_F(ActivationStreamTest, RefusesAnOrderItCannotServe) {
  on_ranks({}, {1, 1}, [](Communicator&, const ProcessGrid&, RowFeed& feed) {
    const BatchSlice slice{.batch_rows = 4, .slice_end = 4};
    EXPECT_THROW(ActivationStream(feed, DataOrder::global(10, 0), slice), ShapeError);
    EXPECT_THROW(ActivationStream(feed, DataOrder::window(feed.rows() + 1, 8, 0), slice), ShapeError);
  });
}

TEST(RowScheduleTest, CutsARunIntoWholeSequencesOfAboutEqualTokens) {
  CapturePlan plan;
  for (std::int64_t i = 0; i < 200; ++i) {
    const std::int64_t rows = i * 37 % 500;
    plan.sequences.push_back({.rows = rows, .tokens = rows == 0 ? 0 : rows + 10});
    plan.rows += rows;
  }
  plan.sequences[70] = {.rows = 9000, .tokens = 9010};
  plan.rows += 9000 - 70 * 37 % 500;
  const RowSchedule schedule(plan);
  for (const int ranks : {1, 3, 8, 64}) {
    for (const auto& [begin, end] : {std::pair<std::int64_t, std::int64_t>{0, plan.rows}, {100, 5000}, {777, 778}}) {
      const std::vector<RowBatch> batches = schedule.batches(begin, end, ranks);
      std::int64_t next = begin, tokens = 0;
      for (const RowBatch& batch : batches) {
        EXPECT_EQ(batch.begin, next);
        std::int64_t rows = 0;
        for (const SequenceRows& part : batch.parts) {
          rows += part.end - part.begin;
          tokens += plan.sequences[static_cast<std::size_t>(part.sequence)].tokens;
          EXPECT_LE(part.end, plan.sequences[static_cast<std::size_t>(part.sequence)].rows);
        }
        next = batch.end;
        EXPECT_EQ(batch.end - batch.begin, rows);
        EXPECT_LE(rows, most_batch_rows(plan));
      }
      EXPECT_EQ(next, end);
      const std::int64_t rounds =
          (tokens + ranks * RowSchedule::kBatchTokens - 1) / (ranks * RowSchedule::kBatchTokens);
      EXPECT_LE(static_cast<std::int64_t>(batches.size()), rounds * ranks);
    }
  }
  EXPECT_LE(most_batch_rows(plan), 9000 + RowSchedule::kBatchTokens + 500);
}

}  // namespace
}  // namespace tadapt

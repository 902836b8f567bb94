// Training over synthetic caches on ranks that are threads, built as run_training builds it but open to tests.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "data/activation_cache_writer.h"
#include "kernels/core/random.h"
#include "runtime/train/local_step.h"
#include "runtime/train/run_shape.h"
#include "runtime/train/state_shards.h"
#include "runtime/train/trainer.h"
#include "tests/support/temporary_directory.h"
#include "tests/support/thread_communicator.h"

namespace tadapt::testing {

inline constexpr std::int64_t kWidth = 6, kSequences = 8, kTokensPerSequence = 16;
inline constexpr int kLayers = 3;

/// A cache of random rows; Δ is a fixed map of x, so that there is something to learn.
inline void write_cache(FileSystem& files, const std::filesystem::path& directory) {
  CacheFormat format;
  format.layers = {0, 1, 2};
  format.width = kWidth;
  format.row_dtype = DType::kFloat32;
  format.chunk_bytes = 1 << 12;
  format.sequences_per_shard = 2;
  ActivationCacheWriter writer(files, {.directory = directory,
                                       .format = format,
                                       .shard_count = kSequences / 2,
                                       .provenance = {{"base", "b"}, {"target", "t"}}});
  constexpr std::int64_t kRows = 2 * kTokensPerSequence;
  for (std::int64_t shard = 0; shard < kSequences / 2; ++shard) {
    std::vector<std::int32_t> ids(kRows, 1), positions;
    std::vector<std::int64_t> sequences;
    for (std::int64_t row = 0; row < kRows; ++row) {
      sequences.push_back(2 * shard + row / kTokensPerSequence);
      positions.push_back(static_cast<std::int32_t>(row % kTokensPerSequence));
    }
    std::vector<std::vector<float>> numbers;
    for (int layer = 0; layer < kLayers; ++layer) {
      const RandomStream random(1, RandomPurpose::kTest, static_cast<std::uint64_t>(shard),
                                static_cast<std::uint64_t>(layer));
      auto& x = numbers.emplace_back();
      for (std::uint32_t i = 0; i < kRows * kWidth; ++i) x.push_back(2.0f * random.uniform(i) - 1.0f);
      auto& delta = numbers.emplace_back(numbers.back());
      for (std::size_t i = 0; i < delta.size(); ++i) delta[i] = std::max(0.0f, delta[i]) * 2.0f;
    }
    ShardRows rows{.ids = ids, .sequences = sequences, .positions = positions, .layers = {}};
    for (std::size_t layer = 0; layer < kLayers; ++layer)
      rows.layers.push_back({Tensor::of(std::span(numbers[2 * layer]), {kRows, kWidth}),
                             Tensor::of(std::span(numbers[2 * layer + 1]), {kRows, kWidth})});
    writer.write_shard(shard, rows);
  }
  writer.finalize();
}

inline RunOptions small_options(const std::filesystem::path& run_dir) {
  RunOptions options;
  options.dir = run_dir;
  options.adapter.features = 10;
  options.train.batch_tokens = 32;
  options.train.reduction_leaves = 4;
  options.train.window_tokens = 48;
  options.train.compute = DType::kFloat32;
  options.train.evaluate_every_steps = 4;
  options.train.dead_after_tokens = 64;
  options.optim.learning_rate = 1e-2;
  options.cache.rows = RowFormat::kFloat32;
  return options;
}

/// One rank's run, built as run_training builds it but open to the test.
class RankRun {
 public:
  RankRun(FileSystem& files, Communicator& world, const RunOptions& options, const std::filesystem::path& cache_dir,
          ProcessGrid grid)
      : options_(options),
        world_(world),
        context_(Context::cpu(1)),
        environment_{.files = files,
                     .world = world,
                     .context = context_,
                     .who = "test",
                     .print = [](const std::string&) {},
                     .stop_requested = [this] { return ++steps_seen_ == stop_in_step; },
                     .heartbeat = [](const std::string&) {}},
        grid_(std::move(grid)),
        cache_(files, cache_dir),
        shape_(run_shape(options, cache_.manifest().format, rows_per_shard(cache_.manifest()))),
        group_(world.split(grid_.block_of(world.rank()), world.rank(), "groups")),
        losses_(kLayers, LocalLoss{.delta_scale = 1.5, .sparsity = 1e-3, .batch_tokens = options.train.batch_tokens}),
        state_(make_state()),
        checkpointer_(context_, files, world, *group_,
                      {.run_dir = options.dir,
                       .keep = options.checkpoint.keep,
                       .samples_per_step = options.train.batch_tokens,
                       .samples_per_epoch = shape_.train_rows,
                       .provenance = {{"config_hash", "c"}, {"base", "b"}, {"target", "t"}, {"cache", "k"}}}) {
    for (std::size_t i = 0; i < state_.trainees.size(); ++i)
      state_.trainees[i].adapter->initialise(environment_.context, state_.store.master_views(i), options.train.seed,
                                             state_.trainees[i].layer);
  }

  TrainingOutcome train(std::int64_t total_steps) {
    const auto silent = [](const std::string&) {};
    const auto newest = newest_checkpoint(environment_.files, world_, options_.dir, silent);
    const std::int64_t first = newest.empty() ? 0 : checkpointer_.restore(newest, state_, silent);
    ActivationLoader loader(cache_, data_order(options_, shape_),
                            loader_options(options_, grid_, world_.rank(), first));
    HeldOut held_out(cache_, world_, grid_, held_out_pieces(options_, shape_));
    std::unique_ptr<MetricsLog> log;
    if (world_.rank() == 0) log = std::make_unique<MetricsLog>(environment_.files, options_.dir, first);
    LocalStep step({.group = *group_,
                    .grid = grid_,
                    .options = options_,
                    .losses = losses_,
                    .state = state_,
                    .loader = loader,
                    .held_out = held_out,
                    .environment = environment_,
                    .trace =
                        [this](const char* what, const std::string& name) {
                          trace.push_back(name + " " + what);
                          if (heard) heard(trace.back());
                        }},
                   total_steps);
    Trainer trainer({.options = options_,
                     .environment = environment_,
                     .state = state_,
                     .step = step,
                     .outputs = {{checkpointer_, log.get()}}},
                    total_steps);
    return trainer.run(first);
  }

  std::int64_t stop_in_step = 0;
  std::vector<std::string> trace;
  std::function<void(const std::string& event)> heard;  ///< "layer-001 backward", as it begins
  ParameterStore& store() { return state_.store; }

 private:
  TrainingState make_state() const {
    std::vector<Trainee> trainees;
    std::vector<ParameterGroupSpec> specs;
    for (const int layer : grid_.layers_of_block(grid_.block_of(world_.rank())))
      trainees.push_back(
          {.name = trainee_name(layer),
           .layer = layer,
           .seed = 0,
           .loss = losses_.front(),
           .adapter = make_adapter("transcoder", {kWidth, options_.adapter.features}, {DType::kFloat32}),
           .tokens_since_active = std::vector<std::int64_t>(static_cast<std::size_t>(options_.adapter.features), 0)});
    for (const Trainee& trainee : trainees) specs.push_back(trainee.adapter->parameters(trainee.name));
    ParameterStore store(Device::kCpu, specs);
    AdamWState optimiser(Device::kCpu, store, state_parts(options_.optim.shard_state, store, *group_));
    return {std::move(trainees), std::move(store), std::move(optimiser)};
  }

  std::int64_t steps_seen_ = 0;
  const RunOptions& options_;
  Communicator& world_;
  Context context_;
  RunEnvironment environment_;
  ProcessGrid grid_;
  ActivationCacheReader cache_;
  RunShape shape_;
  std::unique_ptr<Communicator> group_;
  std::vector<LocalLoss> losses_;
  TrainingState state_;
  Checkpointer checkpointer_;
};

class TrainerTest : public ::testing::Test {
 protected:
  TrainerTest() {
    write_cache(files_, folder_ / "cache");
    files_.make_directories(folder_ / "run");
  }

  /// Trains on a grid of thread ranks; what each rank's trace was.
  std::vector<std::vector<std::string>> train(const std::string& run, GridShape shape, std::int64_t steps,
                                              const std::function<void(RunOptions&)>& change = {}) {
    files_.make_directories(folder_ / run);
    RunOptions options = small_options(folder_ / run);
    if (change) change(options);
    std::vector<std::vector<std::string>> traces(static_cast<std::size_t>(shape.ranks()));
    sent_ = run_ranks(shape.ranks(), [&](Communicator& world) {
      RankRun rank(files_, world, options, folder_ / "cache", ProcessGrid(shape, {0, 1, 2}));
      EXPECT_TRUE(rank.train(steps).finished);
      traces[static_cast<std::size_t>(world.rank())] = rank.trace;
    });
    return traces;
  }
  std::string file(const std::string& name) { return read_text(files_, folder_ / name); }

  RealFileSystem files_;
  TemporaryDirectory folder_;
  std::vector<std::uint64_t> sent_;  ///< by each rank of the last train()
};

}  // namespace tadapt::testing

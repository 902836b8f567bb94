// The training loop over synthetic caches: overlap of exchange and backward, non-finite steps, resume, metrics.
#include "runtime/train/trainer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "data/activation_cache_writer.h"
#include "kernels/core/random.h"
#include "runtime/train/run_shape.h"
#include "runtime/train/state_shards.h"
#include "tests/support/errors.h"
#include "tests/support/temporary_directory.h"
#include "tests/support/thread_communicator.h"

namespace tadapt {
namespace {

constexpr std::int64_t kWidth = 6, kSequences = 8, kTokensPerSequence = 16;
constexpr int kLayers = 3;

/// A cache of random rows; Δ is a fixed map of x, so that there is something to learn.
void write_cache(FileSystem& files, const std::filesystem::path& directory) {
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

RunOptions small_options(const std::filesystem::path& run_dir) {
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
        trainees_(make_trainees()),
        store_(Device::kCpu, group_specs()),
        optimiser_(Device::kCpu, store_, state_parts(options.optim.shard_state, store_, *group_)),
        checkpointer_(context_, files, world, *group_,
                      {.run_dir = options.dir,
                       .keep = 2,
                       .batch_tokens = options.train.batch_tokens,
                       .train_rows = shape_.train_rows,
                       .provenance = {{"config_hash", "c"}, {"base", "b"}, {"target", "t"}, {"cache", "k"}}}) {
    for (std::size_t i = 0; i < trainees_.size(); ++i)
      trainees_[i].adapter->initialise(environment_.context, store_.master_views(i), options.train.seed,
                                       trainees_[i].layer);
  }

  TrainingOutcome train(std::int64_t total_steps) {
    const auto silent = [](const std::string&) {};
    const auto newest = newest_checkpoint(environment_.files, world_, options_.dir, silent);
    const std::int64_t first =
        newest.empty() ? 0 : checkpointer_.restore(newest, trainees_, store_, optimiser_, silent);
    ActivationLoader loader(cache_, data_order(options_, shape_),
                            loader_options(options_, grid_, world_.rank(), first));
    HeldOut held_out(cache_, world_, grid_, {shape_.train_rows, shape_.train_rows + shape_.held_out_rows}, 8);
    std::unique_ptr<MetricsLog> log;
    if (world_.rank() == 0) log = std::make_unique<MetricsLog>(environment_.files, options_.dir, first);
    Trainer trainer(
        {.group = *group_,
         .grid = grid_,
         .options = options_,
         .losses = losses_,
         .trainees = trainees_,
         .store = store_,
         .optimiser = optimiser_,
         .loader = loader,
         .held_out = held_out,
         .checkpointer = checkpointer_,
         .log = log.get(),
         .environment = environment_,
         .trace = [this](const char* what, const std::string& name) { trace.push_back(name + " " + what); }},
        total_steps);
    return trainer.run(first);
  }

  std::int64_t stop_in_step = 0;
  std::vector<std::string> trace;
  ParameterStore& store() { return store_; }

 private:
  std::vector<Trainee> make_trainees() const {
    std::vector<Trainee> trainees;
    for (const int layer : grid_.layers_of_block(grid_.block_of(world_.rank())))
      trainees.push_back(
          {.name = trainee_name(layer),
           .layer = layer,
           .seed = 0,
           .loss = losses_.front(),
           .adapter = make_adapter("transcoder", {kWidth, options_.adapter.features}, {DType::kFloat32}),
           .tokens_since_active = std::vector<std::int64_t>(static_cast<std::size_t>(options_.adapter.features), 0)});
    return trainees;
  }
  std::vector<ParameterGroupSpec> group_specs() const {
    std::vector<ParameterGroupSpec> specs;
    for (const Trainee& trainee : trainees_) specs.push_back(trainee.adapter->parameters(trainee.name));
    return specs;
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
  std::vector<Trainee> trainees_;
  ParameterStore store_;
  AdamWState optimiser_;
  Checkpointer checkpointer_;
};

class TrainerTest : public ::testing::Test {
 protected:
  TrainerTest() {
    write_cache(files_, folder_ / "cache");
    files_.make_directories(folder_ / "run");
  }

  /// Trains on a grid of thread ranks; what each rank's trace was.
  std::vector<std::vector<std::string>> train(const std::string& run, GridShape shape, std::int64_t steps) {
    files_.make_directories(folder_ / run);
    const RunOptions options = small_options(folder_ / run);
    std::vector<std::vector<std::string>> traces(static_cast<std::size_t>(shape.blocks * shape.data_parallel));
    tadapt::testing::run_ranks(shape.blocks * shape.data_parallel, [&](Communicator& world) {
      RankRun rank(files_, world, options, folder_ / "cache", ProcessGrid(shape, {0, 1, 2}));
      EXPECT_TRUE(rank.train(steps).finished);
      traces[static_cast<std::size_t>(world.rank())] = rank.trace;
    });
    return traces;
  }
  /// Options of a run of blocks enough for parts of unlike sizes: 4 of W_enc, 1 of b_enc, 4 of W_dec, 1 of b_dec.
  RunOptions wide_options(const std::string& run, ShardState shard) {
    files_.make_directories(folder_ / run);
    RunOptions options = small_options(folder_ / run);
    options.adapter.features = 2100;
    options.optim.shard_state = shard;
    return options;
  }
  /// Until step 6, or asked to stop in step `stop`.
  void train_wide(const RunOptions& options, GridShape shape, std::int64_t stop = 0) {
    tadapt::testing::run_ranks(shape.blocks * shape.data_parallel, [&](Communicator& world) {
      RankRun rank(files_, world, options, folder_ / "cache", ProcessGrid(shape, {0, 1, 2}));
      if (world.rank() == 0) rank.stop_in_step = stop;
      EXPECT_EQ(rank.train(6).finished, stop == 0);
    });
  }
  void expect_same_end(const std::string& one, const std::string& other) {
    EXPECT_EQ(file(one + "/metrics.jsonl"), file(other + "/metrics.jsonl"));
    for (const char* part : {"layer-000.safetensors", "layer-001.optimizer.safetensors",
                             "layer-002.optimizer.safetensors", "state.json", "MANIFEST"})
      EXPECT_EQ(file(one + "/checkpoints/step-000000006/" + part), file(other + "/checkpoints/step-000000006/" + part))
          << part << " of " << other;
  }
  std::string file(const std::string& name) { return read_text(files_, folder_ / name); }

  RealFileSystem files_;
  tadapt::testing::TemporaryDirectory folder_;
};

TEST_F(TrainerTest, TheExchangeOfALayerRunsBesideTheBackwardOfTheNext) {
  for (const std::vector<std::string>& trace : train("run", {.blocks = 1, .data_parallel = 2}, 1)) {
    const auto at = [&](const std::string& event) { return std::ranges::find(trace, event) - trace.begin(); };
    for (const auto& [layer, next] : {std::pair{"layer-000", "layer-001"}, std::pair{"layer-001", "layer-002"}}) {
      EXPECT_LT(at(std::string(layer) + " exchange-started"), at(std::string(next) + " backward"));
      EXPECT_LT(at(std::string(next) + " exchange-started"), at(std::string(layer) + " exchange-joined"));
      EXPECT_LT(at(std::string(layer) + " exchange-joined"), at(std::string(layer) + " updated"));
    }
    EXPECT_EQ(trace.size(), 3u * 4u);
  }
}

TEST_F(TrainerTest, EveryGridGivesTheSameFiles) {
  train("one", {.blocks = 1, .data_parallel = 1}, 6);
  for (const GridShape shape : {GridShape{3, 1}, GridShape{1, 4}, GridShape{2, 2}}) {
    const std::string name = shape.to_string();
    train(name, shape, 6);
    EXPECT_EQ(file("one/metrics.jsonl"), file(name + "/metrics.jsonl"));
    for (const char* part : {"layer-000.safetensors", "layer-002.optimizer.safetensors", "state.json", "MANIFEST"})
      EXPECT_EQ(file("one/checkpoints/step-000000006/" + std::string(part)),
                file(name + "/checkpoints/step-000000006/" + part));
  }
}

TEST_F(TrainerTest, AStoppedRunThatGoesOnElsewhereEqualsAWholeOne) {
  train("whole", {.blocks = 1, .data_parallel = 1}, 10);
  for (const std::int64_t stop : {1, 4, 10}) {  // step 4 owes a held-out line, and step 10, the last, another
    const std::string name = fmt::format("stopped-{}", stop);
    files_.make_directories(folder_ / name);
    const RunOptions options = small_options(folder_ / name);
    SelfCommunicator self;
    {
      RankRun first(files_, self, options, folder_ / "cache", ProcessGrid({}, {0, 1, 2}));
      first.stop_in_step = stop;
      const TrainingOutcome outcome = first.train(10);
      EXPECT_EQ(outcome.finished, stop == 10);
      EXPECT_EQ(outcome.step, stop);  // a stop is agreed on at the end of the step it is seen in
    }
    if (stop < 10) train(name, {.blocks = 3, .data_parallel = 1}, 10);
    EXPECT_EQ(file("whole/metrics.jsonl"), file(name + "/metrics.jsonl"));
    EXPECT_EQ(file("whole/checkpoints/step-000000010/MANIFEST"), file(name + "/checkpoints/step-000000010/MANIFEST"));
  }
}

TEST_F(TrainerTest, SharedStateGivesTheSameFilesOnAnyGrid) {
  train_wide(wide_options("whole", ShardState::kOff), {1, 1});
  for (const GridShape shape : {GridShape{1, 1}, GridShape{1, 2}, GridShape{1, 4}, GridShape{2, 2}, GridShape{3, 1}}) {
    const std::string name = shape.to_string();
    train_wide(wide_options(name, ShardState::kOn), shape);
    expect_same_end("whole", name);
  }
}

TEST_F(TrainerTest, RanksWithoutAPartOfTheStateTrainOn) {
  for (const auto& [run, shard, ranks] : {std::tuple{"whole", ShardState::kOff, 1}, {"shared", ShardState::kOn, 8}}) {
    RunOptions options = wide_options(run, shard);
    options.adapter.features = 10;  // 4 blocks
    options.train.reduction_leaves = 8;
    train_wide(options, {1, ranks});
  }
  expect_same_end("whole", "shared");
}

TEST_F(TrainerTest, ARunGoesOnWhoeverHasTheState) {
  constexpr auto kOff = ShardState::kOff, kOn = ShardState::kOn;
  train_wide(wide_options("whole", kOff), {1, 1});
  struct Change {
    GridShape before;
    ShardState shared_before;
    GridShape after;
    ShardState shared_after;
  };
  for (const auto& [before, shared_before, after, shared_after] :
       {Change{{1, 2}, kOn, {3, 1}, kOff}, Change{{1, 1}, kOff, {1, 4}, kOn}, Change{{2, 2}, kOn, {1, 4}, kOn},
        Change{{1, 4}, kOn, {1, 4}, kOff}}) {
    const std::string name = before.to_string() + (shared_before == kOn ? " shared, " : ", ") + after.to_string();
    train_wide(wide_options(name, shared_before), before, 3);
    train_wide(wide_options(name, shared_after), after);
    expect_same_end("whole", name);
  }
}

/// Refuses once to make a file of this name.
class RefusingFileSystem : public RealFileSystem {
 public:
  explicit RefusingFileSystem(std::string name) : name_(std::move(name)) {}
  std::unique_ptr<File> open(const std::filesystem::path& path, OpenMode mode) override {
    if (mode == OpenMode::kCreate && path.filename() == name_ && !std::exchange(refused_, true))
      throw WriteError("{}: refused", path.string());
    return RealFileSystem::open(path, mode);
  }

 private:
  std::string name_;
  bool refused_ = false;
};

TEST_F(TrainerTest, ASaveThatFailsOnOneRankLeavesNoOtherWaitingForItsMoments) {
  RunOptions options = wide_options("run", ShardState::kOn);
  options.checkpoint.every_steps = 2;
  tadapt::testing::run_ranks(2, [&](Communicator& world) {
    RefusingFileSystem files(world.rank() == 0 ? "layer-000.safetensors" : "none");
    RankRun rank(files, world, options, folder_ / "cache", ProcessGrid({1, 2}, {0, 1, 2}));
    EXPECT_TRUE(rank.train(6).finished);
  });
  EXPECT_FALSE(files_.exists(folder_ / "run/checkpoints/step-000000002"));
  train_wide(wide_options("whole", ShardState::kOff), {1, 1});
  expect_same_end("whole", "run");
}

TEST_F(TrainerTest, ANonFiniteGradientIsNamedByWhoeverHasItsPart) {
  RunOptions options = small_options(folder_ / "run");
  options.train.reduction_leaves = 8;
  options.optim.shard_state = ShardState::kOn;
  for (const int ranks : {2, 8}) {  // of 8, the last one has all of the state
    const auto run = [&] {
      tadapt::testing::run_ranks(ranks, [&](Communicator& world) {
        RankRun rank(files_, world, options, folder_ / "cache", ProcessGrid({1, ranks}, {0, 1, 2}));
        rank.store().master_views(1)["W_dec"].span<float>()[3] = std::numeric_limits<float>::quiet_NaN();
        rank.train(5);
      });
    };
    try {
      run();
      FAIL() << "trained on";
    } catch (const Error& error) {  // whichever rank came first
      EXPECT_EQ(error.code(), ExitCode::kNonFinite);
      EXPECT_THAT(error.what(),
                  ::testing::AllOf(::testing::HasSubstr("layer 1"), ::testing::HasSubstr("gradient of W_enc")));
    }
  }
  EXPECT_FALSE(files_.exists(folder_ / "run/checkpoints"));
}

TEST_F(TrainerTest, ANonFiniteNumberIsNamedAndNeverSaved) {
  const RunOptions options = small_options(folder_ / "run");
  SelfCommunicator self;
  RankRun rank(files_, self, options, folder_ / "cache", ProcessGrid({}, {0, 1, 2}));
  rank.store().master_views(1)["W_dec"].span<float>()[3] = std::numeric_limits<float>::quiet_NaN();
  try {
    rank.train(5);
    FAIL() << "trained on";
  } catch (const NonFiniteError& error) {
    EXPECT_THAT(error.what(),
                ::testing::AllOf(::testing::HasSubstr("layer 1"), ::testing::HasSubstr("gradient of W_enc"),
                                 ::testing::HasSubstr("step 1"), ::testing::HasSubstr("samples 0 to 31")));
  }
  EXPECT_FALSE(files_.exists(folder_ / "run/checkpoints"));
}

TEST_F(TrainerTest, AWeightThatOverflowsIsNamedAndNeverSaved) {
  RunOptions options = small_options(folder_ / "run");
  options.optim.learning_rate = 3e38;
  options.optim.warmup_fraction = 0;
  options.checkpoint.every_steps = 1;
  SelfCommunicator self;
  RankRun rank(files_, self, options, folder_ / "cache", ProcessGrid({}, {0, 1, 2}));
  EXPECT_ERROR(rank.train(5), NonFiniteError,
               ::testing::AllOf(::testing::HasSubstr("layer 0: W_enc is not finite at step 1"),
                                ::testing::HasSubstr("samples 0 to 31")));
  EXPECT_FALSE(files_.exists(folder_ / "run/checkpoints"));
}

TEST_F(TrainerTest, TheLossFallsAndFeaturesAreCounted) {
  train("run", {.blocks = 1, .data_parallel = 1}, 60);
  const std::string metrics = file("run/metrics.jsonl");
  const auto last_value = [&](const std::string& key) {
    const std::size_t at = metrics.rfind("\"" + key + "\":");
    return std::stod(metrics.substr(at + key.size() + 3));
  };
  const std::size_t first = metrics.find("\"nmse\":");
  EXPECT_LT(last_value("nmse"), 0.5 * std::stod(metrics.substr(first + 7)));
  EXPECT_GT(last_value("l0"), 0.0);
}

}  // namespace
}  // namespace tadapt

// Forecasts against numbers worked out by hand, and planned bytes against what is written.
#include "runtime/train/forecast.h"

#include <gmock/gmock.h>

#include <cmath>
#include <numeric>

#include "runtime/plan/bridging_cost.h"
#include "runtime/plan/calibration.h"
#include "tests/support/errors.h"
#include "tests/support/tiny_models.h"
#include "tests/train/trainer_fixture.h"

namespace tadapt {
namespace {
using ::testing::HasSubstr;

double part(const Forecast& forecast, const std::string& name) {
  for (const auto& [known, seconds] : forecast.parts)
    if (known == name) return seconds;
  return 0.0;
}

/// Five layers of D 2, F 3; a step of 80 tokens in one leaf; a machine of small round numbers.
struct LocalCase {
  LocalCase() {
    options.train.batch_tokens = 80;
    options.train.reduction_leaves = 8;
    options.train.evaluate_every_steps = 0;
    options.adapter.sparse_below = 0.0;
    options.plan.storage_bytes_per_second = 1e12;
    machine.rates = {.flops_per_second = 10,
                     .encoder_flops_per_second = 4,
                     .pair_flops_per_second = 16,
                     .forward_flops_per_second = 5,
                     .memory_bytes_per_second = 17,
                     .exchange_bytes_per_second = 4,
                     .network_bytes_per_second = 2,
                     .seconds_per_message = 0.5};
  }
  Forecast forecast(GridShape grid, double model_flops = 0.0) const {
    return forecast_local(options, shape, ProcessGrid(grid, shape.layers), machine, model_flops);
  }
  RunOptions options;
  RunShape shape{.layers = {0, 1, 2, 3, 4},
                 .width = 2,
                 .dictionaries = {3},
                 .row_dtype = DType::kBFloat16,
                 .train_rows = 800,
                 .steps = 10};
  ForecastMachine machine;
};

TEST(Forecast, OfALocalStep) {
  const LocalCase one;
  const Forecast alone = one.forecast({1, 1});
  EXPECT_DOUBLE_EQ(part(alone, "adapters"), 5 * 10 * 80 * 2 * 3 / 10.0);
  EXPECT_DOUBLE_EQ(part(alone, "update"), 5 * 17 * (34 + 7 * 12) / 17.0);  // 17 parameters, 7 of 8 leaves join another
  EXPECT_DOUBLE_EQ(alone.seconds(), 2400.0 + 5 * 118.0);
  EXPECT_DOUBLE_EQ(alone.tokens_per_second(), 80.0 / alone.seconds());
  EXPECT_EQ(alone.traffic.total(), 0);

  const Forecast grid = one.forecast({2, 2});
  EXPECT_DOUBLE_EQ(part(grid, "adapters"), 3 * 10 * 40 * 2 * 3 / 10.0);
  EXPECT_DOUBLE_EQ(grid.layer_balance, 5.0 / 6.0);
  const double sent = static_cast<double>(grid.traffic.gradients);
  EXPECT_DOUBLE_EQ(part(grid, "exchange"), sent / 4.0 + 3 * 2 * 0.5);
  EXPECT_DOUBLE_EQ(part(grid, "figures"), 2 * 0.5 + 3 * 8 * (1 + 6 * 3) / 4.0);
}

TEST(Forecast, OfTheSparseRoute) {
  LocalCase one;
  one.options.adapter.sparse_below = 2.5;
  one.options.plan.active_features = 2.0;
  const Forecast sparse = one.forecast({1, 1});
  EXPECT_DOUBLE_EQ(part(sparse, "adapters"), 5 * (2 * 80 * 2 * 3 / 4.0 + 80 * 2.0 * 8 * 2 / 16.0));
  EXPECT_DOUBLE_EQ(sparse.dense_seconds, 2400.0 + 5 * 118.0);
  one.options.plan.active_features = 2.5;
  EXPECT_DOUBLE_EQ(part(one.forecast({1, 1}), "adapters"), 2400.0);
}

TEST(Forecast, OfRowsThatAreReadOrMade) {
  LocalCase one;
  // Of each of 80 tokens five layers' x and delta, 2 numbers of 2 bytes each.
  one.options.plan.storage_bytes_per_second = 1.0;
  const Forecast slow = one.forecast({1, 1}, 5.0);
  EXPECT_DOUBLE_EQ(slow.seconds(), 80 * 5 * 2 * 2 * 2);
  EXPECT_THAT(slow.to_string(), HasSubstr("\nWARNING: reading the cache (40 B per token"));
  EXPECT_EQ(one.forecast({1, 1}).warning, "");  // it is not known what making them takes
  one.options.plan.storage_bytes_per_second = 2.0;
  EXPECT_EQ(one.forecast({1, 1}, 5.0).warning, "");
  one.options.cache.source = RowSource::kStream;
  const Forecast stream = one.forecast({1, 1}, 20.0);
  EXPECT_DOUBLE_EQ(part(stream, "models"), 80 * 20 / 5.0);
  EXPECT_DOUBLE_EQ(stream.reading, 0.0);
  // Two ranks make half each and give half of that away.
  EXPECT_EQ(one.forecast({1, 2}, 20.0).traffic.rows, 80 / 2 * 5 * 2 * 2 * 2 / 2);
}

TEST(Forecast, OnAGpuSumsRunBesideTheComputation) {
  LocalCase one;
  one.machine.device = Device::kCuda;
  const Forecast grid = one.forecast({1, 2});
  const double all = static_cast<double>(grid.traffic.gradients) / 4.0 + 5 * 2 * 0.5;
  EXPECT_DOUBLE_EQ(part(grid, "exchange"), std::max(all - part(grid, "adapters"), 0.0) + all / 5);
  one.options.plan.ranks_per_node = 1;
  EXPECT_GT(part(one.forecast({1, 2}), "exchange"), 1.9 * part(grid, "exchange"));
}

TEST(Forecast, LayersOverRanksAreAsGoodAsTheLargestBlockAllows) {
  LocalCase one;
  one.machine = {.rates = *built_in_rates("h200"), .source = "", .device = Device::kCuda};
  one.options.train.batch_tokens = 16384;
  one.options.plan.storage_bytes_per_second = 1e15;
  one.shape.layers.resize(28);
  std::iota(one.shape.layers.begin(), one.shape.layers.end(), 0);
  one.shape.width = 3584;
  one.shape.dictionaries = {8192};
  const double alone = one.forecast({1, 1}).seconds();
  for (int blocks = 1; blocks <= 28; ++blocks) {
    const double bound = 28.0 / std::ceil(28.0 / blocks) / blocks;
    const Forecast grid = one.forecast({blocks, 1});
    EXPECT_NEAR(grid.layer_balance, bound, 1e-12);
    EXPECT_GE(alone / grid.seconds() / blocks, 0.97 * bound) << blocks << " blocks";
  }
}

TEST(Forecast, OfABridgingStep) {
  const DecoderConfig config = parse_decoder_config(testing::tiny_config({}), "config.json");  // 3 layers
  const ForwardFlops flops = forward_flops(config);
  const std::vector<int> layers = {0, 2};
  BridgingStepWork work{.target = config,
                        .layers = layers,
                        .leaves = 4,
                        .leaf_tokens = 100.0,
                        .context_tokens = 7.0,
                        .bridges = {{0.0, 0.0}, {1.0, 0.0}, {1.0, 1.0}},
                        .heads = 1,
                        .features = 10};
  const MachineRates rates{.flops_per_second = 3,
                           .forward_flops_per_second = 5,
                           .backward_flops_per_second = 7,
                           .head_flops_per_second = 11};
  const double model = flops.attention_per_token + flops.mlp_per_token + 7.0 * flops.attention_per_context;
  const double adapter = 12.0 * 24 * 10 / 3;
  const std::vector<double> seconds = layer_seconds(work, rates);
  ASSERT_EQ(seconds.size(), 2u);  // the untrained layer is the first block's
  EXPECT_DOUBLE_EQ(seconds[0], 100.0 * (5 * model / 5 + 3 * model / 7 + adapter));
  EXPECT_DOUBLE_EQ(seconds[1],
                   100.0 * (4 * model / 5 + 3 * model / 7 + 2 * adapter) + 100.0 * 7 * flops.head_per_token / 11);
  EXPECT_DOUBLE_EQ(leaves_seconds(work, {3.0, 2.0}, {1, 1}), 4 * 5.0);
  EXPECT_DOUBLE_EQ(leaves_seconds(work, {3.0, 2.0}, {2, 1}), 3 * 3.0 + 5.0);
  EXPECT_DOUBLE_EQ(leaves_seconds(work, {3.0, 2.0}, {1, 4}), 5.0);
  EXPECT_DOUBLE_EQ(leaves_seconds(work, {3.0, 2.0}, {1, 4, 2}), 5.0 * 3 / 5);
}

TEST(MachineRates, GoThroughAFile) {
  RealFileSystem files;
  const testing::TemporaryDirectory folder;
  const MachineRates& rates = *built_in_rates("h200");
  write_atomically(files, folder / "rates.json", to_json(rates).dump());
  EXPECT_EQ(to_json(read_machine_rates(files, folder / "rates.json")), to_json(rates));
  nlohmann::json broken = to_json(rates);
  broken["head_flops"] = -1;
  write_atomically(files, folder / "rates.json", broken.dump());
  EXPECT_ERROR(read_machine_rates(files, folder / "rates.json"), DataError, HasSubstr("head_flops"));
  write_atomically(files, folder / "rates.json", "[");
  EXPECT_ERROR(read_machine_rates(files, folder / "rates.json"), DataError, HasSubstr("rates.json"));
}

TEST(MachineRates, OfGpusGoByTheirNames) {
  EXPECT_EQ(built_in_machine_of("NVIDIA H200"), "h200");
  EXPECT_EQ(built_in_machine_of("NVIDIA H100 80GB HBM3"), "h100");
  EXPECT_EQ(built_in_machine_of("Tesla T4"), "");
  EXPECT_EQ(built_in_rates("t4"), nullptr);
}

TEST(Calibration, MeasuresEveryRate) {
  const DecoderConfig config = parse_decoder_config(testing::tiny_config({}), "config.json");
  const CalibrationSetting setting{
      .adapter = StepSetting{.shape = {24, 512}, .tokens = 32, .compute = DType::kFloat32},
      .model = ModelSetting{
          .config = config, .compute = DType::kFloat32, .sequence_tokens = 20, .directions = Directions::kBoth}};
  constexpr double kUntouched = -1.0;
  testing::run_ranks(2, [&](Communicator& world) {
    Context own = Context::cpu(1);
    MachineRates rates;
    for (const NamedRate& one : kRates) rates.*one.rate = kUntouched;
    calibrate(own, world, setting, rates);
    for (const NamedRate& one : kRates) {
      if (one.rate != &MachineRates::network_bytes_per_second) {
        EXPECT_GT(rates.*one.rate, 0.0) << one.name;
      }
    }
  });
}

TEST(Calibration, TakesSmallerModelsForLargeOnes) {
  testing::TinyModel large{.layers = 28, .width = 3584, .mlp_width = 18944, .heads = 28, .kv_heads = 4};
  const ModelSetting small =
      measurable({.config = parse_decoder_config(testing::tiny_config(large), "config.json"), .sequence_tokens = 9000});
  EXPECT_EQ(small.config.layers, 1);
  EXPECT_EQ(small.config.width, 1024);
  EXPECT_EQ(small.config.heads, 7);
  EXPECT_EQ(small.config.kv_heads, 1);
  EXPECT_EQ(small.config.head_width, 128);
  EXPECT_LE(small.sequence_tokens, 2048);
}

using PlannedBytes = testing::TrainerTest;

TEST_F(PlannedBytes, OfACheckpointAreThoseOfItsTensors) {
  constexpr std::int64_t kFeatures = 700;
  train("run", {.blocks = 3, .data_parallel = 2}, 2, [](RunOptions& options) { options.adapter.features = kFeatures; });
  const auto checkpoints = list_checkpoints(files_, folder_ / "run/checkpoints");
  ASSERT_EQ(checkpoints.size(), 1u);
  std::uint64_t tensors = 0, whole = 0;
  for (const auto& [name, record] : open_checkpoint(files_, checkpoints.front()).parts) {
    whole += record.bytes;
    for (const auto& [tensor, one] : record.tensors) tensors += one.bytes;
  }
  EXPECT_EQ(tensors, static_cast<std::uint64_t>(checkpoint_bytes(testing::kLayers, testing::kWidth, kFeatures)));
  EXPECT_LT(whole - tensors, std::uint64_t{4096} * testing::kLayers);  // headers
}

TEST_F(PlannedBytes, OfTheStoreAreThoseOfItsParametersInWholeBlocks) {
  const MemoryEstimate planned = estimate_memory(
      {.width = 64, .features = 128, .layers_in_block = 2, .batch_tokens = 8, .compute = DType::kFloat32});
  const auto adapter = make_adapter("transcoder", {64, 128}, {DType::kFloat32});
  const ParameterStore store(Device::kCpu, {adapter->parameters("one"), adapter->parameters("two")});
  const AdamWState optimiser(Device::kCpu, store);
  std::uint64_t masters = 0, gradients = 0, moments = 0;
  for (std::size_t i = 0; i < 2; ++i) {
    masters += store.master(i).bytes();
    gradients += store.gradient(i).bytes();
    moments += optimiser.first_moment(i).bytes() + optimiser.second_moment(i).bytes();
  }
  const auto padding = static_cast<std::uint64_t>(2 * 4 * 4 * kParameterBlock);  // two layers, at most a block a tensor
  const auto near = [&](std::uint64_t allocated, std::int64_t bytes, std::uint64_t slack) {
    EXPECT_GE(allocated, static_cast<std::uint64_t>(bytes));
    EXPECT_LE(allocated, static_cast<std::uint64_t>(bytes) + slack);
  };
  near(masters, planned.master, padding);
  near(gradients, planned.gradients, padding + padding / 4);
  near(moments, planned.moments, 2 * padding);
}

}  // namespace
}  // namespace tadapt

// The training loop: overlap of exchange and backward, non-finite steps, resume, metrics.
#include "runtime/train/trainer.h"

#include <limits>
#include <nlohmann/json.hpp>

#include "kernels/core/random.h"
#include "tests/support/campaign.h"
#include "tests/support/errors.h"
#include "tests/train/trainer_fixture.h"

namespace tadapt {
namespace {
using testing::RankRun;
using testing::small_options;
using testing::TrainerTest;

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

TEST_F(TrainerTest, WaitingForOtherRanksIsTimed) {
  const auto stall_share = [&](const std::string& name, GridShape shape) {
    train(name, shape, 6);
    const auto line = nlohmann::json::parse(file(name + "/timing.jsonl"));
    return line["exchange_stall_seconds"].get<double>() / line["seconds"].get<double>();
  };
  const double alone = stall_share("alone", {}), pair = stall_share("pair", {.blocks = 1, .data_parallel = 2});
  EXPECT_GE(alone, 0.0);
  EXPECT_GT(pair, alone);
  EXPECT_LT(pair, 1.0);
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

TEST_F(TrainerTest, ANonFiniteNumberIsNamedAndNeverSaved) {
  const RunOptions options = small_options(folder_ / "run");
  SelfCommunicator self;
  RankRun rank(files_, self, options, folder_ / "cache", ProcessGrid({}, {0, 1, 2}));
  rank.store().master_views(1)["W_dec"].span<float>()[3] = std::numeric_limits<float>::quiet_NaN();
  try {
    rank.train(5);
    FAIL() << "trained on";
  } catch (const DivergedRun& error) {
    EXPECT_THAT(error.what(),
                ::testing::AllOf(::testing::HasSubstr("layer 1"), ::testing::HasSubstr("gradient of W_enc"),
                                 ::testing::HasSubstr("step 1"), ::testing::HasSubstr("samples 0 to 31")));
  }
  EXPECT_FALSE(files_.exists(folder_ / "run/checkpoints"));
  EXPECT_THAT(file("run/metrics.jsonl"), ::testing::StartsWith("{\"step\":1,\"not_finite\":\"layer 1: "));
}

TEST_F(TrainerTest, ANumberThatIsNotFiniteIsNamedWhereverItComesFrom) {
  const std::int64_t cases = testing::campaign_cases(8);
  for (std::int64_t i = 0; i < cases; ++i) {
    const RandomStream random(testing::campaign_seed(), RandomPurpose::kTest, 11, static_cast<std::uint64_t>(i));
    const auto step = static_cast<std::int64_t>(random.below(0, 12)) + 1;
    const std::size_t layer = random.below(1, 3);
    const std::string name = fmt::format("run-{}", i), event = fmt::format("layer-{:03} backward", layer);
    SCOPED_TRACE(fmt::format("{} of step {}", event, step));
    files_.make_directories(folder_ / name);
    RunOptions options = small_options(folder_ / name);
    options.checkpoint.every_steps = 1;
    SelfCommunicator self;
    RankRun rank(files_, self, options, folder_ / "cache", ProcessGrid({}, {0, 1, 2}));
    std::int64_t seen = 0;
    rank.heard = [&](const std::string& what) {
      if (what == event && ++seen == step)
        rank.store().master_views(layer)["W_dec"].span<float>()[3] = std::numeric_limits<float>::infinity();
    };
    EXPECT_ERROR(
        rank.train(12), DivergedRun,
        ::testing::AllOf(::testing::HasSubstr(fmt::format("layer {}: ", layer)),
                         ::testing::HasSubstr(fmt::format("at step {} ", step)),
                         ::testing::HasSubstr(fmt::format("samples {} to {}", 32 * (step - 1), 32 * step - 1))));
    EXPECT_FALSE(files_.exists(folder_ / name / fmt::format("checkpoints/step-{:09}", step)));
  }
  if (!HasFailure())
    testing::tell_campaign("R11", "infinities at random steps and layers: named, never saved", cases, cases);
}

TEST_F(TrainerTest, AWeightThatOverflowsIsNamedAndNeverSaved) {
  RunOptions options = small_options(folder_ / "run");
  options.optim.learning_rate = 3e38;
  options.optim.warmup_fraction = 0;
  options.checkpoint.every_steps = 1;
  SelfCommunicator self;
  RankRun rank(files_, self, options, folder_ / "cache", ProcessGrid({}, {0, 1, 2}));
  EXPECT_ERROR(rank.train(5), DivergedRun,
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

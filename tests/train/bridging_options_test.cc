// What a configuration says of the bridging objective; which sequences its steps train on.
#include "runtime/train/bridging_options.h"

#include <gmock/gmock.h>

#include <set>

#include "data/token_dataset.h"
#include "data/tokenizer.h"
#include "runtime/train/sequence_batches.h"
#include "tests/support/errors.h"

namespace tadapt {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

RunOptions bridging() {
  RunOptions options;
  options.train.objective = "bridging";
  return options;
}

TEST(BridgingOptions, RecipesFillInWhatIsNotGiven) {
  LossOptions loss;
  BridgingWeights weights = bridging_weights(loss);
  EXPECT_EQ(weights.kl_adapter, 1.0);
  EXPECT_EQ(weights.kl_bridge, 2.0);
  EXPECT_EQ(weights.residual_nmse, 1.0);
  EXPECT_EQ(weights.nmse_over_states, OverStates::kMean);
  loss.recipe = Recipe::kPaper;
  loss.residual_nmse = 0.5;
  weights = bridging_weights(loss);
  EXPECT_EQ(weights.kl_bridge, 1.0);
  EXPECT_EQ(weights.residual_nmse, 0.5);
  EXPECT_EQ(weights.nmse_over_states, OverStates::kSum);
}

TEST(BridgingOptions, CutoffsAreDrawnFromWhereTheRecipeBegins) {
  RunOptions options = bridging();
  options.loss.cutoffs = 3;
  std::set<int> seen;
  for (std::int64_t step = 0; step < 200; ++step)
    for (const int k : cutoffs_of_step(options, 2, step)) seen.insert(k);
  EXPECT_EQ(seen, (std::set<int>{0, 1, 2}));
  options.loss.recipe = Recipe::kPaper;
  seen.clear();
  for (std::int64_t step = 0; step < 200; ++step)
    for (const int k : cutoffs_of_step(options, 2, step)) seen.insert(k);
  EXPECT_EQ(seen, (std::set<int>{1, 2}));
}

TEST(BridgingOptions, FixedCutoffsAreThoseOfEveryStep) {
  RunOptions options = bridging();
  options.loss.fixed_cutoffs = "0,3-5";
  EXPECT_EQ(cutoffs_of_step(options, 5, 7), (std::vector<int>{0, 3, 4, 5}));
  EXPECT_EQ(most_bridges(options.loss, 5), 2);  // at 0 and 5 there is none
  options.loss.fixed_cutoffs = "0-2000000000";
  EXPECT_ERROR(cutoffs_of_step(options, 4, 0), ConfigError, HasSubstr("2000000000"));
  EXPECT_ERROR(require_objective_options(options), ConfigError, HasSubstr("at most 64"));
  options.loss.fixed_cutoffs = "0,3-5";
  EXPECT_ERROR(cutoffs_of_step(options, 4, 0), ConfigError,
               AllOf(HasSubstr("loss.fixed_cutoffs"), HasSubstr("5"), HasSubstr("4 layers")));
}

TEST(BridgingOptions, ThereAreNoMoreBridgesThanPlacesForThem) {
  LossOptions loss = bridging().loss;
  loss.cutoffs = 64;
  EXPECT_EQ(most_bridges(loss, 4), 3);
  loss.backbone = Backbone::kBase;
  EXPECT_EQ(most_bridges(loss, 4), 4);
  loss.cutoffs = 2;
  EXPECT_EQ(most_bridges(loss, 4), 2);
  loss.fixed_cutoffs = "4,4,4";
  EXPECT_EQ(most_bridges(loss, 4), 0);
  loss.kl_bridge = 0.0;
  loss.fixed_cutoffs = "2";
  EXPECT_EQ(most_bridges(loss, 4), 0);
}

TEST(BridgingOptions, LeavesDivideABatch) {
  TrainOptions train;
  for (const auto& [sequences, leaves, expected] :
       {std::array{1, 8, 1}, std::array{24, 8, 8}, std::array{24, 4, 4}, std::array{20, 8, 4}, std::array{7, 8, 1}}) {
    train.batch_sequences = sequences;
    train.reduction_leaves = leaves;
    EXPECT_EQ(sequence_leaves(train), expected) << sequences << " sequences, " << leaves << " leaves";
  }
}

TEST(BridgingOptions, WhatAnObjectiveHasNoUseForIsRefused) {
  RunOptions options = bridging();
  require_objective_options(options);
  options.loss.sparsity_scale = SparsityScale::kRelative;
  EXPECT_ERROR(require_objective_options(options), ConfigError, HasSubstr("loss.sparsity_scale"));
  options = bridging();
  options.cache.source = RowSource::kStream;
  EXPECT_ERROR(require_objective_options(options), ConfigError, HasSubstr("cache.source"));
  RunOptions local;
  require_objective_options(local);
  local.loss.kl_bridge = 2.0;
  EXPECT_ERROR(require_objective_options(local), ConfigError, AllOf(HasSubstr("loss.kl_bridge"), HasSubstr("local")));
  local = RunOptions();
  local.loss.label = 1.0;
  EXPECT_ERROR(require_objective_options(local), ConfigError, HasSubstr("loss.label"));
}

/// Validation sequences of the toy pair, in a file of their own.
class SequenceBatchesTest : public ::testing::Test {
 protected:
  const std::filesystem::path toy_ = std::filesystem::path(TADAPT_SOURCE_DIR) / "data/toy";
  RealFileSystem files_;
  const Tokenizer tokenizer_ = Tokenizer::load(files_, toy_ / "target");
  const TokenDataset corpus_ = TokenDataset::build(files_, toy_ / "validation.jsonl", tokenizer_, {.max_tokens = 1024});
};

TEST_F(SequenceBatchesTest, AnEpochVisitsEverySequenceOnceInAnOrderOfItsOwn) {
  const std::int64_t steps = corpus_.size() / 8;
  ASSERT_EQ(corpus_.size() % 8, 0);
  const SequenceBatches batches(corpus_, 3, 8, 4);
  std::vector<std::int64_t> first, second;
  for (std::int64_t step = 0; step < steps; ++step) {
    std::ranges::copy(batches.lines(step), std::back_inserter(first));
    std::ranges::copy(batches.lines(steps + step), std::back_inserter(second));
  }
  EXPECT_NE(first, second);
  EXPECT_EQ(std::set(first.begin(), first.end()).size(), static_cast<std::size_t>(corpus_.size()));
  EXPECT_EQ(std::set(first.begin(), first.end()), std::set(second.begin(), second.end()));
  EXPECT_NE(SequenceBatches(corpus_, 4, 8, 4).lines(0), batches.lines(0));
}

TEST_F(SequenceBatchesTest, LeavesAreABatchWhateverTheirNumber) {
  const SequenceBatches whole(corpus_, 3, 8, 1), leaves(corpus_, 3, 8, 4);
  for (const std::int64_t step : {0, 49, 50}) {  // across the end of an epoch too
    TokenBatch joined;
    for (std::int64_t leaf = 0; leaf < 4; ++leaf) {
      const TokenBatch part = leaves.leaf(step, leaf);
      EXPECT_EQ(part.sequences(), 2);
      EXPECT_LE(part.tokens(), leaves.most_leaf_tokens());
      for (std::size_t i = 0; i < 2; ++i)
        joined.append(std::span(part.ids).subspan(static_cast<std::size_t>(part.offsets[i]),
                                                  static_cast<std::size_t>(part.offsets[i + 1] - part.offsets[i])));
    }
    EXPECT_EQ(joined.ids, whole.leaf(step, 0).ids);
    const BatchCounts counts = whole.counts(step), counted = counts_of(joined);
    EXPECT_EQ(counts.tokens, counted.tokens);
    EXPECT_EQ(counts.labels, counted.labels);
    EXPECT_EQ(counts.sequences, 8);
  }
}

}  // namespace
}  // namespace tadapt

// Which rows a capture keeps, and what is known of it before it runs.
#include "runtime/capture/capture_plan.h"

#include <algorithm>
#include <cmath>

#include "tests/support/errors.h"
#include "tests/support/tiny_models.h"

namespace tadapt {
namespace {

using ::testing::AllOf;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::TinyModel;

TEST(RowChoice, AllPositionsButTheFirst) {
  EXPECT_THAT(chosen_positions({}, 0, 4), ElementsAre(0, 1, 2, 3));
  EXPECT_THAT(chosen_positions({.drop_first_positions = 2}, 0, 4), ElementsAre(2, 3));
  EXPECT_THAT(chosen_positions({.drop_first_positions = 4}, 0, 4), ElementsAre());
  EXPECT_THAT(chosen_positions({}, 0, 0), ElementsAre());
  EXPECT_THAT(chosen_positions({.tokens_per_sequence = 9}, 0, 3), ElementsAre(0, 1, 2));
}

TEST(RowChoice, DrawsAreSubsetsFixedBySeedAndSequence) {
  const RowChoice choice{.tokens_per_sequence = 5, .drop_first_positions = 3, .seed = 7};
  for (std::int64_t sequence = 0; sequence < 50; ++sequence) {
    const std::vector<std::int32_t> positions = chosen_positions(choice, sequence, 40);
    ASSERT_EQ(positions.size(), 5u);
    EXPECT_TRUE(std::ranges::is_sorted(positions, std::less_equal<>()));
    EXPECT_THAT(positions, Each(AllOf(::testing::Ge(3), ::testing::Lt(40))));
    EXPECT_EQ(positions, chosen_positions(choice, sequence, 40));
  }
  EXPECT_NE(chosen_positions(choice, 0, 40), chosen_positions(choice, 1, 40));
  RowChoice reseeded = choice;
  reseeded.seed = 8;
  EXPECT_NE(chosen_positions(choice, 0, 40), chosen_positions(reseeded, 0, 40));
}

constexpr int kDraws = 20000, kLength = 12, kWanted = 3;

TEST(RowChoice, EveryPositionIsEquallyLikely) {
  std::vector<int> counts(kLength, 0);
  for (int sequence = 0; sequence < kDraws; ++sequence) {
    for (const std::int32_t position :
         chosen_positions({.tokens_per_sequence = kWanted, .seed = 1}, sequence, kLength)) {
      ++counts[static_cast<std::size_t>(position)];
    }
  }
  const double p = static_cast<double>(kWanted) / kLength;
  const double deviation = std::sqrt(kDraws * p * (1 - p));
  for (const int count : counts) EXPECT_NEAR(count, kDraws * p, 5 * deviation);
}

class CapturePlanTest : public ::testing::Test {
 protected:
  CapturePlan plan(const RowChoice& rows, std::vector<std::int64_t> lengths) const {
    return plan_capture({.target = config_, .lengths = lengths, .format = format_, .rows = rows});
  }
  std::vector<std::int64_t> rows_of(const CapturePlan& planned) const {
    std::vector<std::int64_t> rows;
    for (const auto& sequence : planned.sequences) rows.push_back(sequence.rows);
    return rows;
  }

  const DecoderConfig config_ = parse_decoder_config(testing::tiny_config({.max_positions = 100}), "dir/config.json");
  CacheFormat format_{
      .layers = {0, 2}, .width = 24, .row_dtype = DType::kFloat32, .chunk_bytes = 1024, .sequences_per_shard = 2};
};

TEST_F(CapturePlanTest, CountsRowsTokensAndShards) {
  const CapturePlan planned = plan({.drop_first_positions = 3}, {10, 2, 5, 100, 3});
  EXPECT_THAT(rows_of(planned), ElementsAre(7, 0, 2, 97, 0));
  EXPECT_THAT(planned.rows_per_shard, ElementsAre(7, 99, 0));
  EXPECT_EQ(planned.rows, 106);
  EXPECT_EQ(planned.tokens, 10 + 5 + 100);
  EXPECT_EQ(planned.size.shard_bytes,
            shard_file_bytes(format_, 7) + shard_file_bytes(format_, 99) + shard_file_bytes(format_, 0));
  EXPECT_GE(planned.shard_memory_bytes, 99u * 2 * 2 * 24 * sizeof(float) + shard_file_bytes(format_, 99));
}

TEST_F(CapturePlanTest, TheBudgetEndsInSequenceOrder) {
  const CapturePlan planned = plan({.max_tokens = 14, .drop_first_positions = 1}, {6, 6, 6, 6, 6});
  EXPECT_THAT(rows_of(planned), ElementsAre(5, 5, 4));
  EXPECT_EQ(planned.sequences[2].tokens, 5) << "what lies behind the last row is not run";
  EXPECT_THAT(planned.rows_per_shard, ElementsAre(10, 4));
  EXPECT_THAT(planned.positions(2, 6), ElementsAre(1, 2, 3, 4));
  EXPECT_THAT(rows_of(plan({.max_tokens = 10, .drop_first_positions = 1}, {6, 6, 6})), ElementsAre(5, 5));
}

TEST_F(CapturePlanTest, DrawnRowsRunNoFurtherThanTheLast) {
  const RowChoice choice{.max_tokens = 7, .tokens_per_sequence = 4, .seed = 3};
  const CapturePlan planned = plan(choice, {50, 2, 50, 50});
  EXPECT_THAT(rows_of(planned), ElementsAre(4, 2, 1));
  const std::vector<std::int32_t> third = chosen_positions(choice, 2, 50);
  EXPECT_THAT(planned.positions(2, 50), ElementsAre(third[0]));
  EXPECT_EQ(planned.sequences[2].tokens, third[0] + 1);
  EXPECT_EQ(planned.sequences[0].tokens, chosen_positions(choice, 0, 50).back() + 1);
}

TEST_F(CapturePlanTest, Flops) {
  format_.layers = {1};
  const CapturePlan planned = plan({.drop_first_positions = 1}, {3});
  const double attention = 2.0 * 24 * (24 + 12 + 12 + 24), mlp = 2.0 * 3 * 24 * 40, per_context = 2.0 * 2 * 24;
  EXPECT_EQ(planned.flops, 2 * (3 * (attention + mlp) + (1 + 2 + 3) * per_context) + 2 * mlp);
}

TEST_F(CapturePlanTest, RefusesWhatCannotBe) {
  EXPECT_ERROR(plan({}, {10, 101}), ConfigError,
               AllOf(HasSubstr("sequence 1 has 101"), HasSubstr("100"), HasSubstr("dir/config.json"),
                     HasSubstr("corpus.max_sequence_tokens")));
  EXPECT_NO_THROW(plan({.max_tokens = 10}, {10, 101}));
  EXPECT_ERROR(plan({.drop_first_positions = 10}, {10, 4}), ConfigError, HasSubstr("drop_first_positions 10"));
  EXPECT_ERROR(plan({}, {}), ConfigError, HasSubstr("0 sequences"));
  EXPECT_ERROR(plan({.max_tokens = -1}, {5}), ConfigError, HasSubstr("cache.max_tokens is -1"));
  EXPECT_ERROR(plan({.tokens_per_sequence = -1}, {5}), ConfigError, HasSubstr("cache.tokens_per_sequence is -1"));
  EXPECT_ERROR(plan({.drop_first_positions = -1}, {5}), ConfigError, HasSubstr("cache.drop_first_positions is -1"));
  format_.layers = {0, 3};
  EXPECT_ERROR(plan({}, {5}), ConfigError, AllOf(HasSubstr("layer 3"), HasSubstr("3 layers")));
  format_.layers = {2, 0};
  EXPECT_ERROR(plan({}, {5}), ConfigError, HasSubstr("ascending"));
}

}  // namespace
}  // namespace tadapt

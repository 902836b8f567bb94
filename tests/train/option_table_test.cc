// The table of options, the hashable form of a configuration, and choices of layers.
#include "runtime/train/option_table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <set>

#include "tests/support/errors.h"

namespace tadapt {
namespace {
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

std::string as_text(const nlohmann::json& value) { return value.is_string() ? value.get<std::string>() : value.dump(); }

TEST(OptionTable, EveryDefaultIsAcceptedAndComesBack) {
  for (const Option& option : option_table()) {
    RunOptions options;
    const nlohmann::json before = option.value(options);
    EXPECT_TRUE(option.parse(options, as_text(before), "/folder")) << option.key << " refuses " << before;
    EXPECT_EQ(option.value(options), before) << option.key;
  }
}

TEST(OptionTable, KeysAreUniqueAndHaveASectionAndAMeaning) {
  std::set<std::string> keys;
  for (const Option& option : option_table()) {
    EXPECT_TRUE(keys.insert(option.key).second) << option.key;
    EXPECT_EQ(std::ranges::count(option.key, '.'), 1) << option.key;
    EXPECT_FALSE(option.description.empty() || option.expected.empty()) << option.key;
    EXPECT_EQ(find_option(option.key), &option);
  }
  EXPECT_EQ(find_option("train.nothing"), nullptr);
}

struct Refused {
  const char* key;
  const char* text;
};

class RefusedValue : public ::testing::TestWithParam<Refused> {};

TEST_P(RefusedValue, LeavesTheOptionsAsTheyWere) {
  RunOptions options;
  const Option* option = find_option(GetParam().key);
  ASSERT_NE(option, nullptr);
  const nlohmann::json before = option->value(options);
  EXPECT_FALSE(option->parse(options, GetParam().text, "")) << option->key << " takes " << GetParam().text;
  EXPECT_EQ(option->value(options), before);
}

INSTANTIATE_TEST_SUITE_P(
    Ranges, RefusedValue,
    ::testing::Values(
        Refused{"adapter.features", "0"}, Refused{"adapter.features", "-1"}, Refused{"adapter.features", "16777217"},
        Refused{"adapter.features", "99999999999999999999"}, Refused{"adapter.features", "512.0"},
        Refused{"adapter.features", " 512"}, Refused{"adapter.features", "512 "}, Refused{"adapter.features", "64k"},
        Refused{"adapter.features", ""}, Refused{"adapter.features", "0x10"}, Refused{"adapter.type", "sae"},
        Refused{"model.compute", "float32"}, Refused{"run.layers", ""}, Refused{"run.layers", "1,,2"},
        Refused{"run.layers", "5-3"}, Refused{"corpus.format", "chatml"}, Refused{"corpus.max_sequence_tokens", "0"},
        Refused{"cache.rows", "fp8"}, Refused{"cache.max_tokens", "-1"}, Refused{"cache.tokens_per_sequence", "-1"},
        Refused{"cache.drop_first_positions", "-1"}, Refused{"cache.sequences_per_shard", "0"},
        Refused{"cache.chunk_bytes", "4095"}, Refused{"cache.held_out_shards", "-1"}, Refused{"loss.sparsity", "-1e-9"},
        Refused{"loss.sparsity", "nan"}, Refused{"loss.sparsity_scale", "other"}, Refused{"optim.learning_rate", "0"},
        Refused{"optim.learning_rate", "inf"}, Refused{"optim.learning_rate", "1e39"},
        Refused{"optim.learning_rate", "1e-3x"}, Refused{"optim.beta1", "1"}, Refused{"optim.beta2", "0.99999999999"},
        Refused{"optim.epsilon", "1e-50"}, Refused{"optim.beta2", "-0.1"}, Refused{"optim.epsilon", "0"},
        Refused{"optim.weight_decay", "-1"}, Refused{"optim.warmup_fraction", "1.1"}, Refused{"optim.clip_norm", "-1"},
        Refused{"train.objective", "bridge"}, Refused{"train.compute", "fp16"}, Refused{"train.batch_tokens", "0"},
        Refused{"train.reduction_leaves", "0"}, Refused{"train.epochs", "0"}, Refused{"train.steps", "-1"},
        Refused{"train.order", "random"}, Refused{"train.window_tokens", "0"}, Refused{"train.seed", "-1"},
        Refused{"train.evaluate_every_steps", "-1"}, Refused{"train.dead_after_tokens", "0"},
        Refused{"checkpoint.every_steps", "-1"}, Refused{"checkpoint.keep", "1"},
        Refused{"checkpoint.failures_allowed", "-1"}, Refused{"grid.layer_blocks", "-1"},
        Refused{"grid.data_parallel", "-1"}, Refused{"grid.threads", "5000"}, Refused{"grid.timeout_seconds", "0"},
        Refused{"log.every_seconds", "-1"}),
    [](const auto& tested) {
      std::string name = fmt::format("{}_{}", tested.index, tested.param.key);
      std::ranges::replace(name, '.', '_');
      return name;
    });

TEST(OptionTable, PathsStartAtTheFolderUnlessAbsoluteOrEmpty) {
  RunOptions options;
  const Option& base = *find_option("model.base");
  ASSERT_TRUE(base.parse(options, "../models/base", "/project/configs"));
  EXPECT_EQ(options.model.base, "/project/models/base");
  ASSERT_TRUE(base.parse(options, "/models/base", "/project/configs"));
  EXPECT_EQ(options.model.base, "/models/base");
  ASSERT_TRUE(base.parse(options, "", "/project/configs"));
  EXPECT_TRUE(options.model.base.empty());
}

TEST(OptionTable, NumbersComeBackExactly) {
  RunOptions options;
  const Option& rate = *find_option("optim.learning_rate");
  ASSERT_TRUE(rate.parse(options, "0.1234567890123456789", ""));
  RunOptions again;
  ASSERT_TRUE(rate.parse(again, rate.value(options).dump(), ""));
  EXPECT_EQ(again.optim.learning_rate, options.optim.learning_rate);
  ASSERT_TRUE(find_option("train.seed")->parse(options, "18446744073709551615", ""));
  EXPECT_EQ(options.train.seed, 18446744073709551615u);
}

TEST(ConfigJson, LeavesOutPathsGridAndLog) {
  RunOptions options;
  RunOptions moved = options;
  moved.dir = "/elsewhere";
  moved.model.base = "/other/base";
  moved.cache.dir = "/other/cache";
  moved.corpus.train = "/other/train.jsonl";
  moved.grid = {.layer_blocks = 2, .data_parallel = 2, .threads = 3, .timeout_seconds = 5};
  moved.log.every_seconds = 1;
  moved.checkpoint = {.every_steps = 7, .keep = 5, .failures_allowed = 1};
  EXPECT_EQ(config_json(options).dump(), config_json(moved).dump());
}

TEST(ConfigJson, DiffersInEveryOptionThatMustMatch) {
  const RunOptions options;
  EXPECT_THAT(differing_keys(config_json(options), config_json(options)), IsEmpty());
  RunOptions other = options;
  other.train.steps = 400;
  other.adapter.features = 16;
  other.layers = "0,1";
  EXPECT_THAT(differing_keys(config_json(options), config_json(other)),
              ElementsAre("adapter.features (was 8192, now 16)", "run.layers (was \"all\", now \"0,1\")",
                          "train.steps (was 0, now 400)"));
}

TEST(ConfigJson, NamesKeysOnlyOneSideHas) {
  EXPECT_THAT(differing_keys({{"train.old", 1}}, {{"train.new", 2}}),
              ElementsAre("train.new (was not set, now 2)", "train.old (was 1, now not set)"));
}

TEST(ParseLayers, SortedAndDistinct) {
  EXPECT_THAT(parse_layers("all", 4), ElementsAre(0, 1, 2, 3));
  EXPECT_THAT(parse_layers("5-8,0,3,6", 28), ElementsAre(0, 3, 5, 6, 7, 8));
  EXPECT_THAT(parse_layers("27", 28), ElementsAre(27));
}

TEST(ParseLayers, NamesTheBadPiece) {
  EXPECT_ERROR(parse_layers("99", 28), ConfigError, HasSubstr("layer 99 of a 28-layer model"));
  EXPECT_ERROR(parse_layers("0-2000000000", 28), ConfigError, HasSubstr("layer 2000000000 of a 28-layer model"));
  EXPECT_ERROR(parse_layers("1,x,2", 28), ConfigError, AllOf(HasSubstr("'1,x,2'"), HasSubstr("found 'x'")));
  EXPECT_ERROR(parse_layers("8-5", 28), ConfigError, HasSubstr("'8-5' runs backwards"));
  for (const char* text : {"", ",", "1,", "-1", "1-", "1-2-3", "ALL", " 1", "1 2", "99999999999"})
    EXPECT_ERROR(parse_layers(text, 28), ConfigError, HasSubstr("layers '"));
}

}  // namespace
}  // namespace tadapt

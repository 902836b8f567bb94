// Rules over collected features: each against a plain recount of the store, and what no rule is.
#include "runtime/analysis/feature_rule.h"

#include <gmock/gmock.h>

#include "runtime/analysis/feature_labels.h"
#include "tests/analysis/features_fixture.h"

namespace tadapt {
namespace {
using ::testing::AllOf;
using ::testing::HasSubstr;

class FeatureRuleTest : public testing::FeaturesFixture {
 protected:
  void SetUp() override {
    FeaturesFixture::SetUp();
    ASSERT_EQ(collect(request("store")), FeatureOutcome::kDone);
    store_.emplace(files_, folder_ / "store");
    tokens_.emplace(store_->tokens());
  }
  using Ids = std::map<int, std::vector<std::int32_t>>;
  Selection selection(const NamedRule& rule) {
    return select_features({rule}, {*store_, files_, folder_.path()}).front();
  }
  FeatureSet select(const std::string& rule) { return selection({.name = "test", .rule = rule}).set; }
  /// What a plain look at every feature gives.
  Ids those(const std::function<bool(const StoredFeature&)>& test) {
    Ids ids;
    for (const int number : store_->layers()) {
      const StoredLayer layer = store_->layer(number);
      for (std::int64_t i = 0; i < layer.features(); ++i)
        if (test(layer.feature(i))) ids[number].push_back(layer.feature(i).id);
    }
    return ids;
  }
  void refuses(const std::string& rule, const ::testing::Matcher<std::string>& message) {
    EXPECT_ERROR(select(rule), ConfigError, message);
  }

  std::optional<FeatureStore> store_;
  std::optional<StoredTokens> tokens_;
};

INSTANTIATE_TEST_SUITE_P(Cpu, FeatureRuleTest, ::testing::Values(Device::kCpu), testing::device_name);

TEST_P(FeatureRuleTest, RulesAreWhatTheySay) {
  const auto first = store_->layer(store_->layers().front()).feature(0);
  ASSERT_FALSE(first.promoted.empty());
  const std::string word = tokens_->text(first.promoted[1].id);
  const auto promotes = [&](std::size_t top) {
    return those([&, top](const StoredFeature& feature) {
      for (std::size_t i = 0; i < top; ++i)
        if (tokens_->text(feature.promoted[i].id) == word) return true;
      return false;
    });
  };
  EXPECT_EQ(select(fmt::format("promotes(\"{}\", top=2)", word)).features, promotes(2));
  EXPECT_NE(promotes(2), promotes(1));
  const auto share = [](std::int64_t part, std::int64_t whole) {
    return whole == 0 ? -1.0 : static_cast<double>(part) / static_cast<double>(whole);
  };
  EXPECT_EQ(select("region(thinking, share=0.6)").features, those([&](const StoredFeature& feature) {
              return share(feature.counts.by_region[5], feature.counts.active) >= 0.6;
            }));
  EXPECT_EQ(select("template(share=0.5)").features, those([](const StoredFeature& feature) {
              double there = 0.0;
              for (const StoredExample& example : feature.top)
                there += example.region == Region::kBos || example.region == Region::kUserMarker ||
                                 example.region == Region::kAssistantMarker || example.region == Region::kThinkStart ||
                                 (example.region == Region::kThinking && example.region_offset <= 1)
                             ? 1.0
                             : 0.0;
              return !feature.top.empty() && there >= 0.5 * static_cast<double>(feature.top.size());
            }));
  const auto tokens = store_->description().totals.tokens;
  EXPECT_EQ(select("active(from=0.1, to=0.7)").features, those([&](const StoredFeature& feature) {
              const double active = share(feature.counts.active, tokens);
              return active >= 0.1 && active <= 0.7;
            }));
}

TEST_P(FeatureRuleTest, WhatIsLeftOutIsFilledIn) {
  const std::string word = tokens_->text(store_->layer(0).feature(0).promoted[2].id);
  EXPECT_EQ(select("active(from=1)").rule, "active(from=1)");
  const Selection one = selection({.name = "a", .rule = "promotes(x) - promotes(y, top=3) | (promotes( z ))"});
  EXPECT_EQ(one.set.rule, "promotes(x, top=1) - promotes(y, top=3) | (promotes( z , top=1))");
  EXPECT_EQ(one.set.name, "a");
  EXPECT_EQ(selection({.name = {}, .rule = "active() - hesitation", .promoted_tokens = 2}).set.rule,
            "active() - (promotes(wait hmm but alternatively, top=2) | template(share=0.8))");
  EXPECT_EQ(select("hesitation-template | hesitation-output").features, select("hesitation").features);
  const Selection three = selection({.name = "b", .rule = "promotes(\"" + word + "\")", .promoted_tokens = 3});
  EXPECT_EQ(three.set.features, select("promotes(\"" + word + "\", top=3)").features);
  EXPECT_TRUE(std::ranges::binary_search(three.set.features.at(0), 0));
}

TEST_P(FeatureRuleTest, SelectionsSayHowActiveTheyAre) {
  const Selection all = selection({.name = "all", .rule = "active(from=0) | (template(share=0) - active())"});
  std::int64_t active = 0, live = 0;
  those([&](const StoredFeature& feature) {
    active += feature.counts.active;
    live += feature.counts.active > 0 ? 1 : 0;
    return false;
  });
  EXPECT_EQ(all.live, live);
  EXPECT_DOUBLE_EQ(all.active_per_token,
                   static_cast<double>(active) / static_cast<double>(store_->description().totals.tokens));
}

TEST_P(FeatureRuleTest, ClassesThatAJudgeGave) {
  LabelRecord record;
  record.adapters = store_->description().identity;
  const auto label = [&](int layer, int feature, const std::string& given) {
    record.layer = layer;
    record.feature = feature;
    record.label = given;
    return to_line(record);
  };
  const auto write = [&](const std::string& lines) { write_atomically(files_, folder_ / "labels.jsonl", lines); };
  write(label(2, 7, "reasoning/hesitation") + label(0, 3, "domain") + label(0, 4, "reasoning/planning"));
  EXPECT_EQ(select("class(reasoning, labels=labels.jsonl)").features, (Ids{{0, {4}}, {2, {7}}}));
  EXPECT_EQ(select("class(reasoning/hesitation domain, labels=labels.jsonl)").features, (Ids{{0, {3}}, {2, {7}}}));
  EXPECT_EQ(select("class(language, labels=labels.jsonl)").features, Ids());
  refuses("class(reasoning)", HasSubstr("expected labels="));
  refuses("class(reason, labels=labels.jsonl)", AllOf(HasSubstr("uninterpretable"), HasSubstr("found 'reason'")));
  refuses("class(reasoning/doubt, labels=labels.jsonl)", HasSubstr("hesitation, planning"));
  write(label(2, 12, "domain"));
  EXPECT_ERROR(select("class(domain, labels=labels.jsonl)"), DataError,
               HasSubstr("names feature 12 of layer 2, whose dictionary has 12"));
  record.adapters = "transcoder 0";
  write(label(2, 1, "domain"));
  refuses("class(domain, labels=labels.jsonl)", HasSubstr("transcoder 0"));
}

TEST_P(FeatureRuleTest, SetsAreJoinedAsWritten) {
  const std::string a = "region(thinking, share=0.6)", b = "active(from=0.3)", c = "template(share=0.25)";
  const auto in = [](const FeatureSet& set, int layer, std::int32_t id) {
    const auto ids = set.features.find(layer);
    return ids != set.features.end() && std::ranges::binary_search(ids->second, id);
  };
  const FeatureSet in_a = select(a), in_b = select(b), in_c = select(c);
  const auto expect = [&](const std::string& rule, const std::function<bool(bool, bool, bool)>& wanted) {
    const FeatureSet found = select(rule);
    for (const int layer : store_->layers())
      for (std::int32_t id = 0; id < testing::kTestFeatures; ++id)
        EXPECT_EQ(in(found, layer, id), wanted(in(in_a, layer, id), in(in_b, layer, id), in(in_c, layer, id)))
            << rule << " of feature " << id << " of layer " << layer;
  };
  expect(a + " | " + b + " & " + c, [](bool x, bool y, bool z) { return x || (y && z); });
  expect("(" + a + " | " + b + ") & " + c, [](bool x, bool y, bool z) { return (x || y) && z; });
  expect(a + " - " + b + " | " + c, [](bool x, bool y, bool z) { return (x && !y) || z; });
  write_feature_set(files_, folder_ / "a.json", in_a);
  expect("set(a.json) - " + b, [](bool x, bool y, bool) { return x && !y; });
}

TEST_P(FeatureRuleTest, ControlsMatchALayersCount) {
  const std::string rule = "promotes(\"" + tokens_->text(store_->layer(0).feature(0).promoted[0].id) + "\", top=1)";
  const FeatureSet meant = select(rule), control = select("control(" + rule + ", seed=4)");
  EXPECT_EQ(control.features, select("control(" + rule + ", seed=4)").features);
  EXPECT_NE(control.features, select("control(" + rule + ", seed=5)").features);
  const Ids live = those([](const StoredFeature& feature) { return feature.counts.active > 0; });
  for (const auto& [layer, ids] : meant.features) {
    ASSERT_EQ(control.features.at(layer).size(), ids.size());
    for (const std::int32_t id : control.features.at(layer)) {
      EXPECT_FALSE(std::ranges::binary_search(ids, id));
      EXPECT_TRUE(std::ranges::binary_search(live.at(layer), id));
    }
  }
  refuses("control(active(), times=1)", HasSubstr("that the rule leaves out were active"));
}

TEST_P(FeatureRuleTest, WhatIsNoRuleIsNamed) {
  refuses("", HasSubstr("character 1: expected a word, found 'the end'"));
  refuses("promots(wait)", AllOf(HasSubstr("character 1"), HasSubstr("promotes, template")));
  refuses("promotes()", HasSubstr("expected words"));
  refuses("promotes(wait", HasSubstr("the end"));
  refuses("promotes(wait) template()", HasSubstr("expected one of | - &"));
  refuses("template(share=2)", HasSubstr("share: a number from 0 to 1, found '2'"));
  refuses("template(top=2)", HasSubstr("expected share, found 'top'"));
  refuses("promotes(wait, top=0)", HasSubstr("a whole number from 1"));
  refuses("region(here)", AllOf(HasSubstr("thinking"), HasSubstr("found 'here'")));
  refuses("domain(nowhere)", HasSubstr("found 'nowhere'"));
  EXPECT_ERROR(select("set(none.json)"), MissingInputError, HasSubstr("none.json"));
  FeatureSet other = select("active()");
  other.adapters = "transcoder 0";
  write_feature_set(files_, folder_ / "other.json", other);
  refuses("set(other.json)", HasSubstr("transcoder 0"));
  other.adapters = store_->description().identity;
  other.features[0] = {9999};
  write_feature_set(files_, folder_ / "other.json", other);
  EXPECT_ERROR(select("set(other.json)"), DataError,
               HasSubstr("names feature 9999 of layer 0, whose dictionary has 12"));
  refuses("promotes(wait, top=11)", HasSubstr("top: at most 10, which are kept"));
}

TEST_P(FeatureRuleTest, ThePapersNumberIsScaledToTheVocabulary) {
  EXPECT_EQ(promoted_tokens_of(152'064), 10);
  EXPECT_EQ(promoted_tokens_of(76'032), 5);
  EXPECT_EQ(promoted_tokens_of(100), 1);
}

}  // namespace
}  // namespace tadapt

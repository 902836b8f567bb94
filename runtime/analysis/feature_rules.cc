#include "runtime/analysis/feature_rules.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <utility>

#include "kernels/core/random.h"

namespace tadapt {
namespace {

/// A rule that looks at one feature at a time.
class EachFeature : public FeatureRule {
 public:
  using Test = std::function<bool(const StoredFeature& feature, const Layer& layer)>;
  explicit EachFeature(Test test) : test_(std::move(test)) {}

  std::vector<bool> of(const Layer& layer) const override {
    std::vector<bool> meant;
    for (std::int64_t i = 0; i < layer.stored.features(); ++i) meant.push_back(test_(layer.stored.feature(i), layer));
    return meant;
  }

 private:
  Test test_;
};

RulePointer each_feature(EachFeature::Test test) { return std::make_unique<EachFeature>(std::move(test)); }

/// Whether `part` is at least that share of a whole that is there at all.
bool is_share(double part, double whole, double share) { return whole > 0.0 && part >= share * whole; }

/// Whether the thinking's token before this one, its first, is blank: the line break behind <think>.
bool follows_line_break(const StoredExample& example, const StoredTokens& tokens) {
  const std::span<const std::int32_t> ids = tokens.with_number(example.sequence).ids;
  return plain_word(tokens.text(ids[static_cast<std::size_t>(example.position - 1)])).empty();
}

bool is_template_position(const StoredExample& example, const StoredTokens& tokens) {
  switch (example.region) {
    case Region::kBos:
    case Region::kUserMarker:
    case Region::kAssistantMarker:
    case Region::kThinkStart:
      return true;
    case Region::kThinking:
      return example.region_offset == 0 || (example.region_offset == 1 && follows_line_break(example, tokens));
    case Region::kQuestion:
    case Region::kThinkEnd:
    case Region::kAnswer:
      break;
  }
  return false;
}

class Combined : public FeatureRule {
 public:
  Combined(RulePointer left, Combination how, RulePointer right)
      : left_(std::move(left)), right_(std::move(right)), how_(how) {}

  std::vector<bool> of(const Layer& layer) const override {
    std::vector<bool> meant = left_->of(layer);
    const std::vector<bool> other = right_->of(layer);
    for (std::size_t i = 0; i < meant.size(); ++i) {
      const bool a = meant[i], b = other[i];
      meant[i] = how_ == Combination::kUnion ? a || b : how_ == Combination::kDifference ? a && !b : a && b;
    }
    return meant;
  }

 private:
  RulePointer left_, right_;
  Combination how_;
};

class Control : public FeatureRule {
 public:
  Control(RulePointer rule, std::uint64_t seed, double times) : rule_(std::move(rule)), seed_(seed), times_(times) {}

  std::vector<bool> of(const Layer& layer) const override {
    const std::vector<bool> taken = rule_->of(layer);
    const auto matched = static_cast<double>(std::ranges::count(taken, true));
    const auto wanted = static_cast<std::size_t>(std::llround(times_ * matched));
    std::vector<std::pair<float, std::size_t>> drawn;
    for (std::size_t i = 0; i < taken.size(); ++i) {
      const StoredFeature feature = layer.stored.feature(static_cast<std::int64_t>(i));
      if (taken[i] || feature.counts.active == 0) continue;
      const RandomStream random(seed_, RandomPurpose::kControlFeatures,
                                static_cast<std::uint64_t>(layer.stored.layer()),
                                static_cast<std::uint64_t>(feature.id));
      drawn.emplace_back(random.uniform(0), i);
    }
    if (drawn.size() < wanted)
      throw ConfigError("control: {} features of layer {} are wanted, {} that the rule leaves out were active", wanted,
                        layer.stored.layer(), drawn.size());
    std::ranges::sort(drawn);
    std::vector<bool> meant(taken.size(), false);
    for (std::size_t i = 0; i < wanted; ++i) meant[drawn[i].second] = true;
    return meant;
  }

 private:
  RulePointer rule_;
  std::uint64_t seed_;
  double times_;
};

}  // namespace

std::string plain_word(std::string_view text) {
  constexpr std::string_view kSpace = " \t\r\n";
  const std::size_t begin = text.find_first_not_of(kSpace);
  if (begin == text.npos) return {};
  std::string word(text.substr(begin, text.find_last_not_of(kSpace) + 1 - begin));
  for (char& letter : word)
    if (letter >= 'A' && letter <= 'Z') letter = static_cast<char>(letter - 'A' + 'a');
  return word;
}

bool is_one_of(const std::vector<std::string>& words, std::string_view text) {
  return std::ranges::find(words, plain_word(text), plain_word) != words.end();
}

RulePointer promotes_rule(std::vector<std::string> words, int top) {
  return each_feature([words = std::move(words), top](const StoredFeature& feature, const FeatureRule::Layer& layer) {
    const auto looked_at = std::min(feature.promoted.size(), static_cast<std::size_t>(top));
    return std::any_of(feature.promoted.begin(), feature.promoted.begin() + static_cast<std::ptrdiff_t>(looked_at),
                       [&](const LensToken& token) { return is_one_of(words, layer.tokens.text(token.id)); });
  });
}

RulePointer template_rule(double share) {
  return each_feature([share](const StoredFeature& feature, const FeatureRule::Layer& layer) {
    const auto there = std::ranges::count_if(
        feature.top, [&](const StoredExample& example) { return is_template_position(example, layer.tokens); });
    return is_share(static_cast<double>(there), static_cast<double>(feature.top.size()), share);
  });
}

RulePointer region_rule(Region region, double share) {
  return each_feature([place = static_cast<std::size_t>(region), share](const StoredFeature& feature, const auto&) {
    return is_share(static_cast<double>(feature.counts.by_region[place]), static_cast<double>(feature.counts.active),
                    share);
  });
}

RulePointer domain_rule(std::int32_t domain, double share) {
  return each_feature([place = static_cast<std::size_t>(domain), share](const StoredFeature& feature, const auto&) {
    return is_share(static_cast<double>(feature.counts.by_domain[place]), static_cast<double>(feature.counts.active),
                    share);
  });
}

RulePointer active_rule(double from, double to) {
  return each_feature([from, to](const StoredFeature& feature, const FeatureRule::Layer& layer) {
    const double share = static_cast<double>(feature.counts.active) / static_cast<double>(layer.store.totals.tokens);
    return feature.counts.active > 0 && share >= from && share <= to;
  });
}

RulePointer set_rule(FeatureSet set, const FeatureStore& store, const std::string& source) {
  Dictionaries dictionaries{store.directory().string(), store.description().identity, {}};
  // Of neurons only some are there, by their numbers in the MLP.
  const bool all = store.description().subject == "adapters";
  for (const int layer : store.layers())
    dictionaries.features[layer] = all ? store.features(layer) : std::numeric_limits<std::int32_t>::max();
  require_set_fits(set, dictionaries, source);
  return each_feature([set = std::move(set)](const StoredFeature& feature, const FeatureRule::Layer& layer) {
    const auto ids = set.features.find(layer.stored.layer());
    return ids != set.features.end() && std::ranges::binary_search(ids->second, feature.id);
  });
}

RulePointer control_rule(RulePointer rule, std::uint64_t seed, double times) {
  return std::make_unique<Control>(std::move(rule), seed, times);
}

RulePointer combined_rule(RulePointer left, Combination how, RulePointer right) {
  return std::make_unique<Combined>(std::move(left), how, std::move(right));
}

}  // namespace tadapt

#include "runtime/analysis/feature_rule.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>
#include <optional>

#include "runtime/analysis/feature_labels.h"
#include "runtime/analysis/feature_rules.h"
#include "runtime/analysis/graph_influence.h"

namespace tadapt {
namespace {

constexpr double kPaperVocabulary = 152'064.0, kPaperPromoted = 10.0;

/// Words before the first comma and name=value pairs behind it, or from the beginning where there are no words.
struct Arguments {
  std::vector<std::string> words;
  std::map<std::string, std::string> named;
};

struct KnownRule {
  std::string_view name, rule;
};
constexpr KnownRule kKnownRules[] = {{"hesitation-output", kHesitationOutput},
                                     {"hesitation-template", kHesitationTemplate},
                                     {"hesitation", kHesitation}};

/// Recursive descent over the text of a rule.
class RuleParser {
 public:
  RuleParser(const NamedRule& rule, const RuleSubject& subject)
      : text_(rule.rule), subject_(subject), promoted_tokens_(rule.promoted_tokens) {
    if (promoted_tokens_ == 0) promoted_tokens_ = promoted_tokens_of(subject.store.tokens().vocabulary_size());
  }

  ParsedRule whole() {
    RulePointer rule = sum();
    skip_space();
    if (at_ < text_.size()) fail("one of | - & or the end");
    return {std::move(rule), filled_ + text_.substr(filled_to_)};
  }

 private:
  RulePointer sum() {
    RulePointer left = product();
    while (peek() == '|' || peek() == '-') {
      const Combination how = text_[at_++] == '|' ? Combination::kUnion : Combination::kDifference;
      left = combined_rule(std::move(left), how, product());
    }
    return left;
  }
  RulePointer product() {
    RulePointer left = factor();
    while (peek() == '&') {
      ++at_;
      left = combined_rule(std::move(left), Combination::kIntersection, factor());
    }
    return left;
  }
  RulePointer factor() {
    if (peek() == '(') {
      ++at_;
      RulePointer rule = sum();
      expect(')');
      return rule;
    }
    skip_space();
    const std::size_t begin = at_;
    const std::string name = word();
    const auto known = std::ranges::find(kKnownRules, name, &KnownRule::name);
    if (known != std::end(kKnownRules) && peek() != '(') {
      const NamedRule written_out{.name = {}, .rule = std::string(known->rule), .promoted_tokens = promoted_tokens_};
      auto [rule, text] = RuleParser(written_out, subject_).whole();
      replace(begin, "(" + text + ")");
      return std::move(rule);
    }
    expect('(');
    if (name == "control") {
      RulePointer rule = sum();
      Arguments arguments;
      if (peek() == ',') {
        ++at_;
        arguments = read_arguments();
      }
      expect(')');
      allow(arguments, {"seed", "times"}, Words::kNone);
      return control_rule(std::move(rule), static_cast<std::uint64_t>(whole_number(arguments, "seed", 0, 0)),
                          number(arguments, "times", 1e6, 1.0));
    }
    const Arguments arguments = read_arguments();
    RulePointer rule = simple(name, arguments);
    expect(')');
    if (!rule) {
      at_ = begin;
      fail("promotes, template, region, domain, active, class, influence, set, control, hesitation or (");
    }
    return rule;
  }

  RulePointer simple(const std::string& name, const Arguments& arguments) {
    if (name == "promotes") return promotes(arguments);
    if (name == "template") {
      allow(arguments, {"share"}, Words::kNone);
      return template_rule(share(arguments, "share", 0.8));
    }
    if (name == "active") {
      allow(arguments, {"from", "to"}, Words::kNone);
      return active_rule(share(arguments, "from", 0.0), share(arguments, "to", 1.0));
    }
    if (name == "region") {
      allow(arguments, {"share"}, Words::kOne);
      const std::size_t place = index_in(kRegionNames, arguments.words.front());
      return region_rule(static_cast<Region>(place), share(arguments, "share", 0.5));
    }
    if (name == "domain") {
      allow(arguments, {"share"}, Words::kOne);
      const std::size_t place = index_in(subject_.store.description().domains, arguments.words.front());
      return domain_rule(static_cast<std::int32_t>(place), share(arguments, "share", 0.5));
    }
    if (name == "class") return classes(arguments);
    if (name == "influence") return influence(arguments);
    if (name == "set") {
      allow(arguments, {}, Words::kOne);
      const std::filesystem::path file = subject_.directory / arguments.words.front();
      return set_rule(read_feature_set(subject_.files, file), subject_.store, file.string());
    }
    return nullptr;
  }
  RulePointer promotes(const Arguments& arguments) {
    allow(arguments, {"top"}, Words::kSome);
    const std::int64_t top = whole_number(arguments, "top", 1, promoted_tokens_);
    if (top > kLensTokens) fail(fmt::format("top: at most {}, which are kept", kLensTokens), fmt::format("{}", top));
    if (!arguments.named.contains("top")) replace(at_, fmt::format(", top={}", top));
    return promotes_rule(arguments.words, static_cast<int>(top));
  }
  RulePointer classes(const Arguments& arguments) {
    allow(arguments, {"labels"}, Words::kSome);
    for (const std::string& wanted : arguments.words) require_class(wanted);
    const std::filesystem::path file = subject_.directory / needed(arguments, "labels");
    const FeatureLabels labels = read_feature_labels(subject_.files, file);
    FeatureSet set{.name = {}, .rule = {}, .adapters = labels.adapters, .features = {}};
    for (const auto& [feature, label] : labels.of_feature)
      if (std::ranges::any_of(arguments.words, [&](const std::string& wanted) { return label.has_class(wanted); }))
        set.features[feature.first].push_back(feature.second);
    return set_rule(std::move(set), subject_.store, file.string());
  }
  /// "reasoning" or "reasoning/hesitation".
  void require_class(const std::string& wanted) {
    const std::size_t slash = wanted.find('/');
    if (slash == wanted.npos)
      index_in(kFeatureClasses, wanted);
    else if (wanted.substr(0, slash) == "reasoning")
      index_in(kReasoningClasses, wanted.substr(slash + 1));
    else
      fail("reasoning/…", wanted);
  }
  RulePointer influence(const Arguments& arguments) {
    allow(arguments, {"graphs", "share"}, Words::kSome);
    const std::filesystem::path graphs = subject_.directory / needed(arguments, "graphs");
    const StoredTokens tokens = subject_.store.tokens();
    const PredictionInfluence found(subject_.files, graphs, subject_.store.description().identity,
                                    [&](std::int32_t id) { return is_one_of(arguments.words, tokens.text(id)); });
    return set_rule(found.features_with(share(arguments, "share", 0.01)), subject_.store, graphs.string());
  }

  Arguments read_arguments() {
    Arguments arguments;
    while (peek() != ')') {
      const std::string first = word();
      if (peek() != '=') {
        arguments.words.push_back(first);
        if (peek() == ',') ++at_;
        continue;
      }
      ++at_;
      arguments.named[first] = word();
      if (peek() == ',') ++at_;
    }
    return arguments;
  }
  enum class Words { kNone, kOne, kSome };
  /// What a rule does not know may not stand in it.
  void allow(const Arguments& arguments, const std::vector<std::string>& names, Words words) {
    for (const auto& [name, value] : arguments.named)
      if (std::ranges::find(names, name) == names.end())
        fail(names.empty() ? "no names" : fmt::format("{}", fmt::join(names, " or ")), name);
    const std::size_t count = arguments.words.size();
    const bool fits = words == Words::kNone ? count == 0 : words == Words::kOne ? count == 1 : count > 0;
    if (!fits)
      fail(words == Words::kNone  ? "no words"
           : words == Words::kOne ? "one word"
                                  : "words",
           fmt::format("{}", fmt::join(arguments.words, " ")));
  }
  const std::string& needed(const Arguments& arguments, const std::string& name) {
    const auto found = arguments.named.find(name);
    if (found == arguments.named.end()) fail(name + "=…");
    return found->second;
  }
  double number(const Arguments& arguments, const char* name, double most, double otherwise) {
    const auto found = arguments.named.find(name);
    if (found == arguments.named.end()) return otherwise;
    double value = 0.0;
    const std::string& text = found->second;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size() || !(value >= 0.0 && value <= most))
      fail(fmt::format("{}: a number from 0 to {}", name, most), text);
    return value;
  }
  double share(const Arguments& arguments, const char* name, double otherwise) {
    return number(arguments, name, 1.0, otherwise);
  }
  std::int64_t whole_number(const Arguments& arguments, const char* name, std::int64_t least, std::int64_t otherwise) {
    const double value = number(arguments, name, 1e9, static_cast<double>(otherwise));
    if (value != std::floor(value) || value < static_cast<double>(least))
      fail(fmt::format("{}: a whole number from {}", name, least), fmt::format("{}", value));
    return static_cast<std::int64_t>(value);
  }
  template <class Names>
  std::size_t index_in(const Names& names, const std::string& name) {
    const auto found = std::ranges::find(names, name);
    if (found == std::end(names)) fail(fmt::format("one of {}", fmt::join(names, ", ")), name);
    return static_cast<std::size_t>(found - std::begin(names));
  }

  /// Anything up to white space or a sign of the language; in double quotes also those.
  std::string word() {
    skip_space();
    if (at_ < text_.size() && text_[at_] == '"') {
      const std::size_t end = text_.find('"', at_ + 1);
      if (end == text_.npos) fail("a closing quote");
      std::string quoted = text_.substr(at_ + 1, end - at_ - 1);
      at_ = end + 1;
      return quoted;
    }
    const std::size_t end = std::min(text_.find_first_of(" \t\n(),=|&\"", at_), text_.size());
    if (end == at_) fail("a word");
    std::string found = text_.substr(at_, end - at_);
    at_ = end;
    return found;
  }
  char peek() {
    skip_space();
    return at_ < text_.size() ? text_[at_] : '\0';
  }
  void expect(char sign) {
    if (peek() != sign) fail(fmt::format("'{}'", sign));
    ++at_;
  }
  /// Puts `text` into the text of the rule, for what stands from `begin` to here.
  void replace(std::size_t begin, const std::string& text) {
    filled_ += text_.substr(filled_to_, begin - filled_to_) + text;
    filled_to_ = at_;
  }
  void skip_space() { at_ = std::min(text_.find_first_not_of(" \t\n", at_), text_.size()); }
  [[noreturn]] void fail(const std::string& expected, std::optional<std::string> found = {}) {
    if (!found) found = at_ < text_.size() ? text_.substr(at_, 20) : "the end";
    throw ConfigError("rule, character {}: expected {}, found '{}'", at_ + 1, expected, *found);
  }

  const std::string& text_;
  const RuleSubject& subject_;
  int promoted_tokens_;
  std::size_t at_ = 0, filled_to_ = 0;
  std::string filled_;  // of the text up to filled_to_
};

}  // namespace

int promoted_tokens_of(std::int64_t vocabulary) {
  return std::max(1,
                  static_cast<int>(std::lround(kPaperPromoted * static_cast<double>(vocabulary) / kPaperVocabulary)));
}

ParsedRule parse_feature_rule(const NamedRule& rule, const RuleSubject& subject) {
  return RuleParser(rule, subject).whole();
}

std::vector<Selection> select_features(const std::vector<NamedRule>& rules, const RuleSubject& subject) {
  const FeatureStoreDescription& store = subject.store.description();
  std::vector<std::unique_ptr<FeatureRule>> parsed;
  std::vector<Selection> selections;
  for (const NamedRule& rule : rules) {
    auto [tree, text] = parse_feature_rule(rule, subject);
    parsed.push_back(std::move(tree));
    selections.push_back({.set = {.name = rule.name, .rule = text, .adapters = store.identity, .features = {}}});
  }
  const StoredTokens tokens = subject.store.tokens();
  for (const int number : subject.store.layers()) {
    const StoredLayer layer = subject.store.layer(number);
    for (std::size_t rule = 0; rule < rules.size(); ++rule) {
      const std::vector<bool> meant = parsed[rule]->of({layer, tokens, store});
      for (std::size_t i = 0; i < meant.size(); ++i) {
        if (!meant[i]) continue;
        const StoredFeature feature = layer.feature(static_cast<std::int64_t>(i));
        Selection& selection = selections[rule];
        selection.set.features[number].push_back(feature.id);
        selection.live += feature.counts.active > 0 ? 1 : 0;
        selection.active_per_token +=
            static_cast<double>(feature.counts.active) / static_cast<double>(store.totals.tokens);
      }
    }
  }
  return selections;
}

}  // namespace tadapt

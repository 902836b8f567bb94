#include "runtime/analysis/feature_rule.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>
#include <optional>

#include "runtime/analysis/feature_rules.h"

namespace tadapt {
namespace {

constexpr double kPaperVocabulary = 152'064.0, kPaperPromoted = 10.0;

/// Words before the first comma and name=value pairs behind it, or from the beginning where there are no words.
struct Arguments {
  std::vector<std::string> words;
  std::map<std::string, std::string> named;
};

/// Recursive descent over the text of a rule.
class RuleParser {
 public:
  RuleParser(const std::string& text, const RuleSubject& subject) : text_(text), subject_(subject) {}

  RulePointer whole() {
    RulePointer rule = sum();
    skip_space();
    if (at_ < text_.size()) fail("one of | - & or the end");
    return rule;
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
    const std::size_t begin = at_;
    const std::string name = word();
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
    expect(')');
    RulePointer rule = simple(name, arguments);
    if (!rule) {
      at_ = begin;
      fail("promotes, template, region, domain, active, set, control or (");
    }
    return rule;
  }

  RulePointer simple(const std::string& name, const Arguments& arguments) {
    if (name == "promotes") {
      allow(arguments, {"top"}, Words::kSome);
      const int otherwise = promoted_tokens_of(subject_.store.tokens().vocabulary_size());
      return promotes_rule(arguments.words, static_cast<int>(whole_number(arguments, "top", 1, otherwise)));
    }
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
    if (name == "set") {
      allow(arguments, {}, Words::kOne);
      return set_rule(read_set(arguments.words.front()));
    }
    return nullptr;
  }
  FeatureSet read_set(const std::string& file) {
    const std::filesystem::path path = subject_.directory / file;
    FeatureSet set = read_feature_set(subject_.files, path);
    if (set.adapters != subject_.store.description().identity)
      throw ConfigError("{}: a set of features of '{}', the store's are of '{}'", path.string(), set.adapters,
                        subject_.store.description().identity);
    return set;
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
  void skip_space() { at_ = std::min(text_.find_first_not_of(" \t\n", at_), text_.size()); }
  [[noreturn]] void fail(const std::string& expected, std::optional<std::string> found = {}) {
    if (!found) found = at_ < text_.size() ? text_.substr(at_, 20) : "the end";
    throw ConfigError("rule, character {}: expected {}, found '{}'", at_ + 1, expected, *found);
  }

  const std::string& text_;
  const RuleSubject& subject_;
  std::size_t at_ = 0;
};

}  // namespace

int promoted_tokens_of(std::int64_t vocabulary) {
  return std::max(1,
                  static_cast<int>(std::lround(kPaperPromoted * static_cast<double>(vocabulary) / kPaperVocabulary)));
}

std::unique_ptr<FeatureRule> parse_feature_rule(const std::string& rule, const RuleSubject& subject) {
  return RuleParser(rule, subject).whole();
}

FeatureSet select_features(const std::string& rule, const std::string& name, const RuleSubject& subject) {
  const std::unique_ptr<FeatureRule> parsed = parse_feature_rule(rule, subject);
  const StoredTokens tokens = subject.store.tokens();
  FeatureSet set{.name = name, .rule = rule, .adapters = subject.store.description().identity, .features = {}};
  for (const int number : subject.store.layers()) {
    const StoredLayer layer = subject.store.layer(number);
    const std::vector<bool> meant = parsed->of({layer, tokens, subject.store.description()});
    for (std::size_t i = 0; i < meant.size(); ++i)
      if (meant[i]) set.features[number].push_back(layer.feature(static_cast<std::int64_t>(i)).id);
  }
  return set;
}

}  // namespace tadapt

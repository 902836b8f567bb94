// Events instead of YAML::Load: nothing is built from hostile text, and every node keeps its line.
#include "launcher/yaml_reader.h"

#include <fmt/format.h>
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <cctype>
#include <map>
#include <sstream>
#include <utility>

#include "kernels/core/error.h"
#include "launcher/quoted.h"

namespace tadapt {
namespace {

class EntryCollector : public YAML::EventHandler {
 public:
  explicit EntryCollector(std::string label) : label_(std::move(label)) {}

  std::vector<YamlEntry> take() { return std::move(entries_); }

  void OnDocumentStart(const YAML::Mark&) override {}
  void OnDocumentEnd() override {}

  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    refuse_anchor(mark, anchor);
    if (depth_ == 0) return;
    if (pending_.key.empty()) refuse(mark, "an empty key");
    if (depth_ == 2) throw ConfigError("{}:{}: {} has no value", label_, pending_.line, pending_.key);
    finish_pair("");
  }

  void OnAlias(const YAML::Mark& mark, YAML::anchor_t) override { refuse(mark, "aliases (*name) are not allowed"); }

  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& value) override {
    refuse_anchor(mark, anchor);
    refuse_tag(mark, tag);
    if (depth_ == 0) refuse(mark, fmt::format("expected sections such as \"train:\", found {}", quoted(value)));
    if (pending_.key.empty()) {
      start_pair(mark, value);
    } else {
      finish_pair(value);
    }
  }

  void OnSequenceStart(const YAML::Mark& mark, const std::string&, YAML::anchor_t, YAML::EmitterStyle::value) override {
    refuse(mark, pending_.key.empty() ? "lists are not allowed" : pending_.key + ": lists are not allowed");
  }
  void OnSequenceEnd() override {}

  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    refuse_anchor(mark, anchor);
    refuse_tag(mark, tag);
    if (depth_ > 0 && pending_.key.empty()) refuse(mark, "a key must be a plain word");
    if (depth_ == 2) refuse(mark, pending_.key + ": expected one value, found keys below it");
    section_ = pending_.key;
    pending_ = {};
    ++depth_;
  }

  void OnMapEnd() override {
    --depth_;
    section_.clear();
  }

 private:
  [[noreturn]] void refuse(const YAML::Mark& mark, const std::string& what) const {
    throw ConfigError("{}:{}: {}", label_, mark.line + 1, what);
  }
  void refuse_anchor(const YAML::Mark& mark, YAML::anchor_t anchor) const {
    if (anchor != 0) refuse(mark, "anchors (&name) are not allowed");
  }
  void refuse_tag(const YAML::Mark& mark, const std::string& tag) const {
    if (tag != "" && tag != "?" && tag != "!")
      refuse(mark, fmt::format("tags such as {} are not allowed", quoted(tag)));
  }
  /// `name` is a section at depth 1, a key at depth 2.
  void start_pair(const YAML::Mark& mark, const std::string& name) {
    if (name.empty() || name.size() > 100 || !std::ranges::all_of(name, is_key_letter))
      refuse(mark, fmt::format("{} is no key", quoted(name)));
    const std::string key = depth_ == 1 ? name : section_ + "." + name;
    const auto [first, inserted] = line_of_.emplace(key, mark.line + 1);
    if (!inserted) refuse(mark, fmt::format("{} is already set in line {}", key, first->second));
    pending_ = {key, "", mark.line + 1};
  }
  void finish_pair(const std::string& value) {
    pending_.text = value;
    entries_.push_back(std::exchange(pending_, {}));
  }

  static bool is_key_letter(unsigned char letter) { return std::isalnum(letter) || letter == '_' || letter == '-'; }

  std::string label_;
  std::vector<YamlEntry> entries_;
  std::map<std::string, int> line_of_;
  std::string section_;  // of the map at depth 2
  YamlEntry pending_;    // waits for its value; its key is empty when a key comes next
  int depth_ = 0;
};

}  // namespace

std::vector<YamlEntry> read_yaml(const std::string& text, const std::string& label) {
  EntryCollector collector(label);
  try {
    std::istringstream stream(text);
    YAML::Parser parser(stream);
    parser.HandleNextDocument(collector);
    EntryCollector second(label);
    if (parser.HandleNextDocument(second)) throw ConfigError("{}: more than one YAML document", label);
  } catch (const YAML::Exception& error) {
    // The parser's message ends with the letter it did not expect, which may be a line's end.
    std::string message = error.msg;
    std::ranges::replace_if(message, [](unsigned char letter) { return std::iscntrl(letter) != 0; }, ' ');
    throw ConfigError("{}:{}: {}", label, error.mark.line + 1, message);
  }
  return collector.take();
}

}  // namespace tadapt

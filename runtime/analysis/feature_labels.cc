#include "runtime/analysis/feature_labels.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <limits>
#include <set>

#include "data/corpus.h"
#include "data/json.h"
#include "data/json_field.h"

namespace tadapt {

FeatureSet labelled_features(FileSystem& files, const std::filesystem::path& file, const LabelQuestion& question) {
  constexpr std::int64_t kMost = std::numeric_limits<std::int32_t>::max();
  std::set<std::string> given;
  std::map<int, std::set<std::int32_t>> found;
  CorpusReader lines(files, file);
  for (CorpusLine line; lines.next(line);) {
    const std::string place = fmt::format("{}: line {}", file.string(), line.number);
    const nlohmann::json document = parse_json(line.text, place);
    const JsonField root(document, place);
    const auto layer = static_cast<int>(root["layer"].integer(0, kMost));
    const auto feature = static_cast<std::int32_t>(root["feature"].integer(0, kMost));
    const std::string adapters = root["adapters"].string_or(question.adapters);
    if (adapters != question.adapters)
      throw ConfigError("{}: a label of the adapters '{}', the features are those of '{}'", place, adapters,
                        question.adapters);
    // A feature without a label is one on which a judge gave no answer.
    if (!root["label"].present() || (!question.task.empty() && root["task"].string_or("") != question.task)) continue;
    const std::string& label = root["label"].string();
    given.insert(label);
    if (std::ranges::find(question.labels, label) != question.labels.end()) found[layer].insert(feature);
  }
  for (const std::string& label : question.labels)
    if (!given.contains(label))
      throw ConfigError("{}: no feature has the label '{}'{}, found {}", file.string(), label,
                        question.task.empty() ? "" : " in the task '" + question.task + "'",
                        given.empty() ? "none" : fmt::format("{}", fmt::join(given, ", ")));
  FeatureSet set{.name = {}, .rule = {}, .adapters = question.adapters, .features = {}};
  for (const auto& [layer, ids] : found) set.features[layer].assign(ids.begin(), ids.end());
  return set;
}

}  // namespace tadapt

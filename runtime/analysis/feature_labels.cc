#include "runtime/analysis/feature_labels.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <limits>
#include <tuple>

#include "data/json.h"
#include "data/json_field.h"
#include "data/line_reader.h"

namespace tadapt {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

constexpr std::int64_t kMost = std::int64_t{1} << 53;

template <class Names>
bool knows(const Names& names, std::string_view name) {
  return std::ranges::find(names, name) != names.end();
}

/// "reasoning/hesitation" -> {"reasoning", "hesitation"}.
std::pair<std::string, std::string> split_class(const std::string& label) {
  const std::size_t slash = label.find('/');
  return slash == label.npos ? std::pair(label, std::string())
                             : std::pair(label.substr(0, slash), label.substr(slash + 1));
}

bool is_class(const std::string& label) {
  const auto [main, sub] = split_class(label);
  if (main == "reasoning") return knows(kReasoningClasses, sub);
  return sub.empty() && !label.ends_with('/') && knows(kFeatureClasses, main);
}

/// {"top": [right, shown], …}.
DetectionCount count_of(const JsonField& label, const char* kind) {
  const JsonField pair = label[kind];
  if (pair.array().size() != 2) pair.expected("[right, shown]");
  const auto shown = static_cast<int>(pair.at(1).integer(0, 1 << 20));
  return {.right = static_cast<int>(pair.at(0).integer(0, shown)), .shown = shown};
}

DetectionScore score_of(const nlohmann::json& label, const std::string& place) {
  const JsonField field(label, place);
  return {.top = count_of(field, "top"), .uniform = count_of(field, "uniform"), .silent = count_of(field, "silent")};
}

std::string place_of(const fs::path& path, std::int64_t line) { return fmt::format("{}:{}", path.string(), line); }

}  // namespace

std::string_view name(LabelTask task) { return kLabelTaskNames[static_cast<std::size_t>(task)]; }

std::optional<LabelTask> label_task(std::string_view name) {
  const auto found = std::ranges::find(kLabelTaskNames, name);
  if (found == kLabelTaskNames.end()) return std::nullopt;
  return static_cast<LabelTask>(found - kLabelTaskNames.begin());
}

double DetectionScore::balanced(const DetectionCount& active) const {
  if (active.shown == 0 || silent.shown == 0) return std::numeric_limits<double>::quiet_NaN();
  const auto share = [](const DetectionCount& count) { return static_cast<double>(count.right) / count.shown; };
  return 0.5 * (share(active) + share(silent));
}

void require_label(LabelTask task, const Json& label, const std::string& place) {
  if (task == LabelTask::kDetect) {
    if (!label.is_object()) throw DataError("{}: expected counts of texts, found {}", place, in_quotes(label.dump()));
    score_of(label, place);
    return;
  }
  const bool is_text = label.is_string() && !label.get_ref<const std::string&>().empty();
  if (task == LabelTask::kDescribe && !is_text)
    throw DataError("{}: expected a description, found {}", place, in_quotes(label.dump()));
  if (task == LabelTask::kClassify && (!is_text || !is_class(label.get<std::string>())))
    throw DataError("{}: expected one of {}, reasoning/{}; found {}", place,
                    fmt::join(std::array{kFeatureClasses[0], kFeatureClasses[1], kFeatureClasses[3]}, ", "),
                    fmt::join(kReasoningClasses, ", reasoning/"), in_quotes(label.dump()));
}

DetectionScore detection_score(const Json& label) { return score_of(label, "label"); }

std::string to_line(const LabelRecord& record) {
  Json line = {{"adapters", record.adapters},
               {"layer", record.layer},
               {"feature", record.feature},
               {"task", name(record.task)},
               {"label", record.label}};
  if (!record.problem.empty()) line["problem"] = record.problem;
  line["id"] = record.id;
  line["model"] = record.model;
  line["prompt_version"] = record.prompt_version;
  line["prompt"] = record.prompt;
  line["answer"] = record.answer;
  line["prompt_tokens"] = record.prompt_tokens;
  line["answer_tokens"] = record.answer_tokens;
  return line.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
}

LabelRecord read_label_line(const std::string& text, const std::string& place) {
  const nlohmann::json json = parse_json(text, place);
  const JsonField line(json, place);
  const std::string& task_name = line["task"].string();
  const std::optional<LabelTask> task = label_task(task_name);
  if (!task) line["task"].expected(fmt::format("one of {}", fmt::join(kLabelTaskNames, ", ")));
  LabelRecord record{
      .adapters = line["adapters"].string(),
      .task = *task,
      .layer = static_cast<int>(line["layer"].integer(0, 1 << 20)),
      .feature = static_cast<std::int32_t>(line["feature"].integer(0, std::numeric_limits<std::int32_t>::max())),
      .label = line["label"].present() ? Json(json.at("label")) : Json(),
      .problem = line["problem"].string_or(""),
      .id = line["id"].string_or(""),
      .model = line["model"].string_or(""),
      .prompt_version = line["prompt_version"].string_or(""),
      .prompt = line["prompt"].present() ? Json(json.at("prompt")) : Json(),
      .answer = line["answer"].string_or(""),
      .prompt_tokens = line["prompt_tokens"].present() ? line["prompt_tokens"].integer(0, kMost) : 0,
      .answer_tokens = line["answer_tokens"].present() ? line["answer_tokens"].integer(0, kMost) : 0};
  if (!record.label.is_null()) require_label(record.task, record.label, place + ": label");
  return record;
}

void read_label_lines(FileSystem& files, const fs::path& path,
                      const std::function<void(LabelRecord, const std::string&)>& take) {
  LineReader lines(files, path);
  std::int64_t number = 0;
  for (std::string line; lines.next(line);) {
    const std::string place = place_of(path, ++number);
    if (!lines.ended() && !nlohmann::json::accept(line)) return;
    take(read_label_line(line, place), place);
  }
}

bool FeatureLabel::has_class(std::string_view wanted) const {
  const auto [main, sub] = split_class(std::string(wanted));
  return main_class == main && (sub.empty() || subclass == sub);
}

const FeatureLabel* FeatureLabels::find(int layer, std::int32_t feature) const {
  const auto found = of_feature.find({layer, feature});
  return found == of_feature.end() ? nullptr : &found->second;
}

void FeatureLabels::take(const LabelRecord& record) {
  if (record.label.is_null()) return;
  FeatureLabel& label = of_feature[{record.layer, record.feature}];
  if (record.task == LabelTask::kClassify)
    std::tie(label.main_class, label.subclass) = split_class(record.label.get<std::string>());
  else if (record.task == LabelTask::kDescribe)
    label.description = record.label.get<std::string>();
  else
    label.detection = score_of(record.label, record.id);
}

FeatureLabels read_feature_labels(FileSystem& files, const fs::path& path) {
  FeatureLabels labels;
  std::string first;
  read_label_lines(files, path, [&](const LabelRecord& record, const std::string& place) {
    if (first.empty()) {
      first = place;
      labels.adapters = record.adapters;
      labels.model = record.model;
    }
    if (record.adapters != labels.adapters)
      throw DataError("{}: a label of features of '{}', those of {} are of '{}'", place, record.adapters, first,
                      labels.adapters);
    labels.take(record);
  });
  if (first.empty()) throw DataError("{}: no labels", path.string());
  return labels;
}

}  // namespace tadapt

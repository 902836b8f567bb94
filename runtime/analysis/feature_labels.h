// Feature labels: what a judge said of features, as lines of a file; the one place that reads and writes them.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "data/file.h"

namespace tadapt {

enum class LabelTask : std::uint8_t { kClassify, kDescribe, kDetect };
inline constexpr std::array<std::string_view, 3> kLabelTaskNames = {"classify", "describe", "detect"};
std::string_view name(LabelTask task);
std::optional<LabelTask> label_task(std::string_view name);

inline constexpr std::array<std::string_view, 4> kFeatureClasses = {"language", "domain", "reasoning",
                                                                    "uninterpretable"};
/// Of the class "reasoning".
inline constexpr std::array<std::string_view, 8> kReasoningClasses = {
    "hesitation", "planning", "verification", "computation", "transition", "conclusion", "template", "other"};

/// Of so many texts that were shown, those that were judged rightly.
struct DetectionCount {
  int right = 0, shown = 0;
};

/// How well a description told texts in which the feature is active from others.
struct DetectionScore {
  DetectionCount top;      ///< held-out examples with the largest activations
  DetectionCount uniform;  ///< held-out examples drawn uniformly
  DetectionCount silent;   ///< texts in which the feature is not active

  /// ½ (share of the texts with activations that were found + share of the others that were left); NaN where none was
  /// shown. Guessing gives 0.5.
  double balanced_top() const { return balanced(top); }
  double balanced_uniform() const { return balanced(uniform); }

 private:
  double balanced(const DetectionCount& active) const;
};

/// One answer of a judge: a line.
struct LabelRecord {
  std::string adapters;  ///< FeatureStoreDescription::identity
  LabelTask task = LabelTask::kClassify;
  int layer = 0;
  std::int32_t feature = 0;
  nlohmann::ordered_json label;  ///< see feature_labels.cc; null when the judge gave none that can be used
  std::string problem;           ///< why there is none
  std::string id;                ///< of the question: task/layer/feature/hash of the prompt
  std::string model;
  std::string prompt_version;
  nlohmann::ordered_json prompt;  ///< the messages
  std::string answer;             ///< as it came
  std::int64_t prompt_tokens = 0, answer_tokens = 0;
};

/// With its line end.
std::string to_line(const LabelRecord& record);
/// DataError "file:line: …" for a line that is no record, or whose label is none of its task.
LabelRecord read_label_line(const std::string& text, const std::string& place);
/// All lines of a file in turn, with their places. A last line that is torn is left out.
void read_label_lines(FileSystem& files, const std::filesystem::path& path,
                      const std::function<void(LabelRecord record, const std::string& place)>& take);

/// DataError beginning with `place` unless `label` is one of the task.
void require_label(LabelTask task, const nlohmann::ordered_json& label, const std::string& place);

/// Of a label of kDetect, which require_label has passed.
DetectionScore detection_score(const nlohmann::ordered_json& label);

/// All that was said of one feature.
struct FeatureLabel {
  std::string main_class;   ///< one of kFeatureClasses; empty: not classified
  std::string subclass;     ///< of "reasoning", one of kReasoningClasses
  std::string description;  ///< empty: not described
  std::optional<DetectionScore> detection;

  /// Whether `wanted` ("reasoning", "reasoning/hesitation") is its class.
  bool has_class(std::string_view wanted) const;
};

struct FeatureLabels {
  std::string adapters;                                             ///< identity of those whose features they are
  std::string model;                                                ///< the judge
  std::map<std::pair<int, std::int32_t>, FeatureLabel> of_feature;  ///< by layer and feature

  /// nullptr when nothing is said of it.
  const FeatureLabel* find(int layer, std::int32_t feature) const;
  void take(const LabelRecord& record);
};

/// MissingInputError when it is not there; DataError for a wrong line, for lines of other adapters than the first's,
/// and for a file without lines.
FeatureLabels read_feature_labels(FileSystem& files, const std::filesystem::path& path);

}  // namespace tadapt

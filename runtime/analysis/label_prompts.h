// What a judge is asked about a feature, and what its answers mean.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "runtime/analysis/feature_labels.h"
#include "runtime/analysis/label_texts.h"

namespace tadapt {

/// "classify-1": another text of a prompt has another version.
std::string prompt_version(LabelTask task);

/// What a text that is shown for detection is.
enum class TextKind : std::uint8_t { kTop, kUniform, kSilent };

struct LabelQuestion {
  LabelTask task = LabelTask::kClassify;
  int layer = 0;
  std::int32_t feature = 0;
  std::string id;                   ///< task/layer/feature/hash of version and messages
  nlohmann::ordered_json messages;  ///< [{role, content}, …], as chat completions take them
  std::vector<TextKind> texts;      ///< of kDetect: of each text in the order shown
};

/// A class by the texts that are shown and the tokens that the feature promotes.
LabelQuestion classify_question(const LabelSubject& subject, const LabelTexts& texts);
/// A description by the same.
LabelQuestion describe_question(const LabelSubject& subject, const LabelTexts& texts);
/// In which of the held-out and silent texts, shuffled by (seed, kLabelTexts), is the feature so described active?
LabelQuestion detect_question(const LabelSubject& subject, const LabelTexts& texts, const std::string& description);

/// What an answer says: a label of the task, or why it says none.
struct JudgedLabel {
  nlohmann::ordered_json label;
  std::string problem;
};

/// Reads the JSON object in an answer: what stands before `</think>`, and around the object, does not count.
JudgedLabel read_judged_label(const LabelQuestion& question, const std::string& answer);

}  // namespace tadapt

#include "runtime/analysis/label_questions.h"

#include <algorithm>

namespace tadapt {
namespace {

/// Of a description of 30 words.
constexpr std::size_t kUsualDescriptionBytes = 180;

}  // namespace

bool LabelSource::is_open(const std::string& id) const {
  const nlohmann::ordered_json* label = answers.find(id);
  return label == nullptr || (again && label->is_null());
}

LabelQuestions::LabelQuestions(const LabelSource& source, std::vector<LabelTask> tasks, Undescribed undescribed)
    : source_(source), tasks_(std::move(tasks)), undescribed_(undescribed), at_layer_(source.chosen.by_layer.begin()) {}

std::optional<LabelQuestion> LabelQuestions::next() {
  while (at_question_ == questions_.size())
    if (!next_feature()) return std::nullopt;
  return std::move(questions_[at_question_++]);
}

std::optional<LabelQuestion> LabelQuestions::next_open() {
  for (;;) {
    std::optional<LabelQuestion> question = next();
    if (!question || source_.is_open(question->id)) return question;
  }
}

bool LabelQuestions::next_feature() {
  for (;; ++at_layer_, at_feature_ = 0, layer_.reset()) {
    if (at_layer_ == source_.chosen.by_layer.end()) return false;
    if (at_feature_ == at_layer_->second.size()) continue;
    if (!layer_) layer_.emplace(source_.store.layer(at_layer_->first));
    ask_about(layer_->feature(at_layer_->second[at_feature_++]));
    return true;
  }
}

void LabelQuestions::ask_about(const StoredFeature& feature) {
  questions_.clear();
  at_question_ = 0;
  const LabelSubject subject{layer_->layer(), feature, source_.tokens, source_.seed};
  const LabelTexts texts = choose_label_texts(subject);
  if (!texts.can_be_described()) {
    ++skips_.few_texts;
    return;
  }
  if (wants(LabelTask::kClassify)) questions_.push_back(classify_question(subject, texts));
  LabelQuestion describe = describe_question(subject, texts);
  const std::optional<std::string> words = description(describe);
  if (wants(LabelTask::kDescribe)) questions_.push_back(std::move(describe));
  if (!wants(LabelTask::kDetect)) return;
  if (!texts.can_be_detected())
    ++skips_.few_to_detect;
  else if (!words)
    ++skips_.without_description;
  else
    questions_.push_back(detect_question(subject, texts, *words));
}

/// What was answered, or may be expected to be.
std::optional<std::string> LabelQuestions::description(const LabelQuestion& describe) const {
  const nlohmann::ordered_json* label = source_.answers.find(describe.id);
  if (label != nullptr && label->is_string()) return label->get<std::string>();
  const bool expected = undescribed_ == Undescribed::kExpected && wants(LabelTask::kDescribe);
  if (expected && source_.is_open(describe.id)) return std::string(kUsualDescriptionBytes, '.');
  return std::nullopt;
}

bool LabelQuestions::wants(LabelTask task) const { return std::ranges::count(tasks_, task) > 0; }

}  // namespace tadapt

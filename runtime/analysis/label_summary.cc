#include "runtime/analysis/label_summary.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "runtime/train/progress.h"

namespace tadapt {
namespace {

using Json = nlohmann::ordered_json;

constexpr double kZ = 1.959963984540054;
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

/// Of an answer, where none has been given: an object with a class, 30 words, or some numbers.
constexpr std::array kUsualAnswerTokens{12.0, 55.0, 25.0};
constexpr double kBytesPerToken = 4.0;

std::string row(std::string_view name, std::int64_t features, const Estimate& estimate) {
  if (std::isnan(estimate.value)) return "";
  const std::string interval =
      std::isnan(estimate.low) ? "" : fmt::format("{:8.1f} – {:.1f} %", 100.0 * estimate.low, 100.0 * estimate.high);
  return fmt::format("  {:<24} {:>8} {:>8.1f} %{}\n", name, features, 100.0 * estimate.value, interval);
}

Json json_of(std::int64_t features, const Estimate& estimate) {
  Json json = {{"features", features}};
  json.update(tadapt::json_of(estimate));
  return json;
}

std::vector<double> defined(const std::vector<DetectionScore>& scores, double (DetectionScore::*of)() const) {
  std::vector<double> found;
  for (const DetectionScore& score : scores)
    if (const double value = (score.*of)(); !std::isnan(value)) found.push_back(value);
  return found;
}

double usual_answer_tokens(const LabelSummary& summary, std::size_t task) {
  const TokensUsed& used = summary.used[task];
  return used.answer > 0 ? static_cast<double>(used.answer) / static_cast<double>(used.answers)
                         : kUsualAnswerTokens[task];
}

}  // namespace

Estimate share_of(std::int64_t part, std::int64_t whole) {
  if (whole == 0) return {kNaN, kNaN, kNaN};
  const auto n = static_cast<double>(whole);
  const double p = static_cast<double>(part) / n, stretch = 1.0 + kZ * kZ / n;
  const double middle = (p + kZ * kZ / (2.0 * n)) / stretch;
  const double half = kZ * std::sqrt(p * (1.0 - p) / n + kZ * kZ / (4.0 * n * n)) / stretch;
  return {p, std::clamp(middle - half, 0.0, p), std::clamp(middle + half, p, 1.0)};
}

Estimate mean_of(const std::vector<double>& shares) {
  if (shares.empty()) return {kNaN, kNaN, kNaN};
  const auto n = static_cast<double>(shares.size());
  double sum = 0.0, squares = 0.0;
  for (const double share : shares) sum += share;
  const double mean = sum / n;
  if (shares.size() == 1) return {mean, kNaN, kNaN};
  for (const double share : shares) squares += (share - mean) * (share - mean);
  const double half = kZ * std::sqrt(squares / (n - 1.0) / n);
  return {mean, std::max(0.0, mean - half), std::min(1.0, mean + half)};
}

void LabelSummary::take(const LabelQuestion& question, const LabelSource& source) {
  TaskTally& tally = tasks[static_cast<std::size_t>(question.task)];
  ++tally.questions;
  if (source.is_open(question.id)) {
    ++tally.open;
    tally.open_bytes += static_cast<double>(question.messages.dump().size());
  }
  const Json* label = source.answers.find(question.id);
  if (label == nullptr) return;
  ++(label->is_null() ? tally.unlabelled : tally.labelled);
  if (label->is_null()) return;
  if (question.task == LabelTask::kClassify) ++classes[label->get<std::string>()];
  if (question.task == LabelTask::kDetect) detections.push_back(detection_score(*label));
}

std::int64_t LabelSummary::features_of_class(std::string_view name) const {
  std::int64_t features = 0;
  for (const auto& [label, count] : classes)
    if (label == name || label.starts_with(fmt::format("{}/", name))) features += count;
  return features;
}

Estimate LabelSummary::top_score() const { return mean_of(defined(detections, &DetectionScore::balanced_top)); }
Estimate LabelSummary::uniform_score() const { return mean_of(defined(detections, &DetectionScore::balanced_uniform)); }

Json LabelSummary::to_json() const {
  Json asked, shares, reasoning, tokens;
  for (std::size_t i = 0; i < tasks.size(); ++i) {
    const TaskTally& tally = tasks[i];
    asked[kLabelTaskNames[i]] = {{"questions", tally.questions},
                                 {"labelled", tally.labelled},
                                 {"unlabelled", tally.unlabelled},
                                 {"unanswered", tally.questions - tally.answered()}};
    tokens[kLabelTaskNames[i]] = {
        {"answers", used[i].answers}, {"prompt_tokens", used[i].prompt}, {"answer_tokens", used[i].answer}};
  }
  const std::int64_t classified = tasks[0].labelled;
  const auto share = [&](const std::string& name) {
    return json_of(features_of_class(name), share_of(features_of_class(name), classified));
  };
  for (const std::string_view name : kFeatureClasses) shares[name] = share(std::string(name));
  for (const std::string_view name : kReasoningClasses) reasoning[name] = share(fmt::format("reasoning/{}", name));
  const auto scored = [&](double (DetectionScore::*of)() const) {
    const std::vector<double> scores = defined(detections, of);
    return json_of(std::ssize(scores), mean_of(scores));
  };
  return {{"format_version", 1},
          {"adapters", adapters},
          {"model", model},
          {"features", {{"chosen", chosen}, {"live", live}, {"sampled", chosen < live}, {"seed", seed}}},
          {"skipped",
           {{"few_texts", skips.few_texts},
            {"few_to_detect", skips.few_to_detect},
            {"without_description", skips.without_description}}},
          {"tasks", asked},
          {"classes", shares},
          {"reasoning", reasoning},
          {"detection",
           {{"top", scored(&DetectionScore::balanced_top)}, {"uniform", scored(&DetectionScore::balanced_uniform)}}},
          {"tokens", tokens}};
}

std::string LabelSummary::to_text() const {
  std::string text =
      chosen < live
          ? fmt::format("{} of {} live features, drawn with seed {}: shares and scores are estimates for all of them\n",
                        chosen, live, seed)
          : fmt::format("all {} live features\n", live);
  text += fmt::format(
      "left out: {} features with too few texts to show, {} with too few to detect, {} without a description\n",
      skips.few_texts, skips.few_to_detect, skips.without_description);
  TokensUsed all;
  for (std::size_t i = 0; i < tasks.size(); ++i) {
    all.prompt += used[i].prompt;
    all.answer += used[i].answer;
    if (tasks[i].questions == 0) continue;
    text += fmt::format("{}: {} questions, {} labelled, {} answered without a label, {} unanswered\n",
                        kLabelTaskNames[i], tasks[i].questions, tasks[i].labelled, tasks[i].unlabelled,
                        tasks[i].questions - tasks[i].answered());
  }
  const std::int64_t classified = tasks[0].labelled;
  if (classified > 0) text += "classes: features, share, 95 % interval (Wilson)\n";
  for (const std::string_view name : kFeatureClasses) {
    text += row(name, features_of_class(name), share_of(features_of_class(name), classified));
    if (name != "reasoning") continue;
    for (const std::string_view sub : kReasoningClasses) {
      const std::string label = fmt::format("reasoning/{}", sub);
      if (classes.contains(label)) text += row(label, classes.at(label), share_of(classes.at(label), classified));
    }
  }
  if (!detections.empty()) text += "detection, chance 50 %: features, mean balanced accuracy, 95 % interval (normal)\n";
  text += row("top examples", std::ssize(defined(detections, &DetectionScore::balanced_top)), top_score());
  text += row("uniform examples", std::ssize(defined(detections, &DetectionScore::balanced_uniform)), uniform_score());
  return text + fmt::format("tokens: {} read, {} written by the judge\n", all.prompt, all.answer);
}

std::string forecast_text(const LabelSummary& summary, const LabelPrices& prices) {
  std::int64_t requests = 0;
  double in = 0.0, out = 0.0;
  std::string by_task;
  for (std::size_t i = 0; i < summary.tasks.size(); ++i) {
    const TaskTally& tally = summary.tasks[i];
    requests += tally.open;
    in += tally.open_bytes / kBytesPerToken;
    out += static_cast<double>(tally.open) * usual_answer_tokens(summary, i);
    if (tally.questions > 0)
      by_task += fmt::format("{}{} {}", by_task.empty() ? "" : ", ", kLabelTaskNames[i], tally.open);
  }
  std::string text = fmt::format(
      "label: {} requests ({}) about {} features; {} prompt tokens (estimated: bytes / {:.0f}), {} answer tokens "
      "(estimated, without a judge's reasoning, unless earlier answers show it)",
      requests, by_task, summary.chosen, count_text(in), kBytesPerToken, count_text(out));
  if (prices.per_million_in > 0.0 || prices.per_million_out > 0.0)
    text += fmt::format("; cost {:.2f}", 1e-6 * (in * prices.per_million_in + out * prices.per_million_out));
  if (prices.requests_per_minute > 0.0)
    text += fmt::format("; {:.2f} hours at {} requests a minute",
                        static_cast<double>(requests) / prices.requests_per_minute / 60.0, prices.requests_per_minute);
  return text;
}

}  // namespace tadapt

#include "runtime/eval/benchmark_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>

namespace tadapt {
namespace {

using Json = nlohmann::ordered_json;
constexpr double kUndefined = std::numeric_limits<double>::quiet_NaN();

/// Accuracy of every question: mean over its responses.
std::vector<double> per_question(const ModelResponses& model, std::int64_t questions) {
  std::vector<double> correct(static_cast<std::size_t>(questions), 0.0), counted = correct;
  for (const GradedResponse& response : model.responses) {
    const auto at = static_cast<std::size_t>(response.question);
    counted[at] += 1.0;
    correct[at] += response.correct ? 1.0 : 0.0;
  }
  for (std::size_t i = 0; i < correct.size(); ++i) correct[i] /= counted[i];
  return correct;
}

double mean(const std::vector<double>& numbers) {
  double sum = 0.0;
  for (const double number : numbers) sum += number;
  return sum / static_cast<double>(numbers.size());
}

double recovery(double adapter, double zero, double target) {
  return target > zero ? (adapter - zero) / (target - zero) : kUndefined;
}

/// Means of the questions of resample number `resample`, a model each.
std::vector<double> resampled(const std::vector<std::vector<double>>& models, std::uint64_t seed,
                              std::uint64_t resample) {
  const std::size_t questions = models.front().size();
  std::vector<double> means(models.size(), 0.0);
  for (const std::size_t drawn : drawn_questions(static_cast<std::int64_t>(questions), seed, resample))
    for (std::size_t m = 0; m < models.size(); ++m) means[m] += models[m][drawn];
  for (double& sum : means) sum /= static_cast<double>(questions);
  return means;
}

ModelScores scores_of(const ModelResponses& model) {
  ModelScores scores;
  scores.name = model.name;
  scores.responses = static_cast<std::int64_t>(model.responses.size());
  std::vector<double> lengths;
  double tokens = 0.0, waits = 0.0, hesitations = 0.0;
  for (const GradedResponse& response : model.responses) {
    lengths.push_back(static_cast<double>(response.tokens));
    tokens += lengths.back();
    waits += static_cast<double>(response.waits);
    hesitations += static_cast<double>(response.hesitations);
    scores.degenerate_share += response.degenerate ? 1.0 : 0.0;
    scores.unfinished_share += response.finished ? 0.0 : 1.0;
  }
  const double responses = static_cast<double>(scores.responses);
  std::ranges::sort(lengths);
  scores.mean_tokens = tokens / responses;
  scores.median_tokens = (lengths[(lengths.size() - 1) / 2] + lengths[lengths.size() / 2]) / 2;
  scores.wait_rate = 1000.0 * waits / std::max(1.0, tokens);
  scores.hesitation_rate = 1000.0 * hesitations / std::max(1.0, tokens);
  scores.degenerate_share /= responses;
  scores.unfinished_share /= responses;
  return scores;
}

std::string percent(double value) { return std::isnan(value) ? "-" : fmt::format("{:.1f} %", 100.0 * value); }

std::string with_interval(const Estimate& estimate) {
  if (std::isnan(estimate.value)) return "not defined";
  return fmt::format("{} [{}, {}]", percent(estimate.value), percent(estimate.low), percent(estimate.high));
}

constexpr char kRow[] = "{:<9} {:>9} {:>26} {:>8} {:>8} {:>8} {:>8} {:>11} {:>11}\n";

}  // namespace

BenchmarkReport score_benchmark(const std::vector<ModelResponses>& models, std::int64_t questions, std::uint64_t seed) {
  BenchmarkReport report;
  report.questions = questions;
  std::vector<std::vector<double>> accuracies;
  for (const ModelResponses& model : models) accuracies.push_back(per_question(model, questions));
  std::vector<std::vector<double>> resamples;
  for (std::uint64_t i = 0; i < kResamples; ++i) resamples.push_back(resampled(accuracies, seed, i));

  for (std::size_t m = 0; m < models.size(); ++m) {
    std::vector<double> means;
    for (const std::vector<double>& resample : resamples) means.push_back(resample[m]);
    report.models.push_back(scores_of(models[m]));
    report.models.back().accuracy = interval(mean(accuracies[m]), std::move(means));
  }
  const auto place = [&](std::string_view name) -> std::optional<std::size_t> {
    const auto found = std::ranges::find(models, name, &ModelResponses::name);
    if (found == models.end()) return std::nullopt;
    return static_cast<std::size_t>(found - models.begin());
  };
  const auto recovered = [&](std::string_view zero_point) -> Estimate {
    const auto adapter = place("adapter"), zero = place(zero_point), target = place("target");
    if (!adapter || !zero || !target) return {kUndefined, kUndefined, kUndefined};
    std::vector<double> all;
    for (const std::vector<double>& means : resamples)
      all.push_back(recovery(means[*adapter], means[*zero], means[*target]));
    const double value = recovery(mean(accuracies[*adapter]), mean(accuracies[*zero]), mean(accuracies[*target]));
    return interval(value, std::move(all));
  };
  report.recovery_from_hybrid = recovered("hybrid");
  report.recovery_from_base = recovered("base");
  return report;
}

std::string to_table(const BenchmarkReport& report) {
  std::string table = fmt::format("{} questions; intervals: 95 %, bootstrap over questions\n", report.questions) +
                      fmt::format(kRow, "model", "responses", "accuracy", "mean len", "median", "wait/1k", "hesit/1k",
                                  "degenerate", "unfinished");
  for (const ModelScores& model : report.models)
    table += fmt::format(kRow, model.name, model.responses, with_interval(model.accuracy),
                         fmt::format("{:.1f}", model.mean_tokens), fmt::format("{:g}", model.median_tokens),
                         fmt::format("{:.2f}", model.wait_rate), fmt::format("{:.2f}", model.hesitation_rate),
                         percent(model.degenerate_share), percent(model.unfinished_share));
  if (!report.base_refusal.empty()) table += fmt::format("(no base row: {})\n", report.base_refusal);
  const bool has_adapter = std::ranges::find(report.models, "adapter", &ModelScores::name) != report.models.end();
  if (has_adapter)
    table += fmt::format("accuracy recovered from the hybrid {}, from the base {}\n",
                         with_interval(report.recovery_from_hybrid), with_interval(report.recovery_from_base));
  return table;
}

std::string to_json(const BenchmarkReport& report, const Json& subject) {
  Json object = subject, models = Json::array();
  for (const ModelScores& model : report.models)
    models.push_back({{"model", model.name},
                      {"responses", model.responses},
                      {"accuracy", json_of(model.accuracy)},
                      {"mean_tokens", model.mean_tokens},
                      {"median_tokens", model.median_tokens},
                      {"wait_rate", model.wait_rate},
                      {"hesitation_rate", model.hesitation_rate},
                      {"degenerate_share", model.degenerate_share},
                      {"unfinished_share", model.unfinished_share}});
  object["questions"] = report.questions;
  object["models"] = models;
  object["recovery_from_hybrid"] = json_of(report.recovery_from_hybrid);
  object["recovery_from_base"] = json_of(report.recovery_from_base);
  if (!report.base_refusal.empty()) object["base_refusal"] = report.base_refusal;
  return object.dump(2) + "\n";
}

}  // namespace tadapt

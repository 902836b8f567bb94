#include "runtime/eval/paired_scores.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace tadapt {
namespace {

/// What metrics are made of, summed over responses.
struct Sums {
  double responses = 0.0, correct = 0.0, tokens = 0.0, waits = 0.0, hesitations = 0.0, degenerate = 0.0;

  Sums& operator+=(const Sums& other) {
    responses += other.responses;
    correct += other.correct;
    tokens += other.tokens;
    waits += other.waits;
    hesitations += other.hesitations;
    degenerate += other.degenerate;
    return *this;
  }
};

std::vector<Sums> by_question(const ModelResponses& model, std::int64_t questions) {
  std::vector<Sums> sums(static_cast<std::size_t>(questions));
  for (const GradedResponse& response : model.responses)
    sums[static_cast<std::size_t>(response.question)] += {.responses = 1.0,
                                                          .correct = response.correct ? 1.0 : 0.0,
                                                          .tokens = static_cast<double>(response.tokens),
                                                          .waits = static_cast<double>(response.waits),
                                                          .hesitations = static_cast<double>(response.hesitations),
                                                          .degenerate = response.degenerate ? 1.0 : 0.0};
  return sums;
}

double metric_of(const Sums& sums, ResponseMetric metric) {
  switch (metric) {
    case ResponseMetric::kAccuracy:
      return sums.correct / sums.responses;
    case ResponseMetric::kMeanTokens:
      return sums.tokens / sums.responses;
    case ResponseMetric::kWaitRate:
      return 1000.0 * sums.waits / std::max(1.0, sums.tokens);
    case ResponseMetric::kHesitationRate:
      return 1000.0 * sums.hesitations / std::max(1.0, sums.tokens);
    case ResponseMetric::kDegenerateShare:
      break;
  }
  return sums.degenerate / sums.responses;
}

/// Both models' sums over the same questions.
struct Pair {
  Sums model, reference;
};

double relative(double value, double reference) {
  return reference == 0.0 ? std::numeric_limits<double>::quiet_NaN() : (value - reference) / reference;
}

PairedScore scored(ResponseMetric metric, const Pair& whole, const std::vector<Pair>& resamples) {
  std::vector<double> values, differences, changes;
  double above = 0.0, below = 0.0;
  for (const Pair& pair : resamples) {
    const double value = metric_of(pair.model, metric), reference = metric_of(pair.reference, metric);
    values.push_back(value);
    differences.push_back(value - reference);
    changes.push_back(relative(value, reference));
    above += value >= reference ? 1.0 : 0.0;
    below += value <= reference ? 1.0 : 0.0;
  }
  const double value = metric_of(whole.model, metric), reference = metric_of(whole.reference, metric);
  return {.value = interval(value, std::move(values)),
          .difference = interval(value - reference, std::move(differences)),
          .relative_change = interval(relative(value, reference), std::move(changes)),
          .p = std::min(1.0, 2.0 * std::min(above, below) / static_cast<double>(resamples.size()))};
}

}  // namespace

std::string_view name(ResponseMetric metric) {
  constexpr std::array<std::string_view, kResponseMetrics.size()> kNames{"accuracy", "mean_tokens", "wait_rate",
                                                                         "hesitation_rate", "degenerate_share"};
  return kNames[static_cast<std::size_t>(metric)];
}

PairedScores paired_scores(const ModelResponses& model, const ModelResponses& reference, std::int64_t questions,
                           std::uint64_t seed) {
  const std::vector<Sums> own = by_question(model, questions), others = by_question(reference, questions);
  Pair whole;
  for (std::size_t i = 0; i < own.size(); ++i) {
    whole.model += own[i];
    whole.reference += others[i];
  }
  std::vector<Pair> resamples(kResamples);
  for (std::uint64_t i = 0; i < kResamples; ++i)
    for (const std::size_t drawn : drawn_questions(questions, seed, i)) {
      resamples[i].model += own[drawn];
      resamples[i].reference += others[drawn];
    }
  PairedScores scores;
  for (const ResponseMetric metric : kResponseMetrics)
    scores[static_cast<std::size_t>(metric)] = scored(metric, whole, resamples);
  return scores;
}

}  // namespace tadapt

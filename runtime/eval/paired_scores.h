// PairedScores: how one model's responses differ from another's to the same questions.
#pragma once

#include <array>
#include <string_view>

#include "runtime/eval/benchmark_report.h"

namespace tadapt {

enum class ResponseMetric { kAccuracy, kMeanTokens, kWaitRate, kHesitationRate, kDegenerateShare };
inline constexpr std::array kResponseMetrics{ResponseMetric::kAccuracy, ResponseMetric::kMeanTokens,
                                             ResponseMetric::kWaitRate, ResponseMetric::kHesitationRate,
                                             ResponseMetric::kDegenerateShare};
std::string_view name(ResponseMetric metric);  ///< "accuracy", "mean_tokens", …, rates per 1,000 tokens

/// One metric of a model, and against a reference that answered the same questions.
struct PairedScore {
  Estimate value;
  Estimate difference;       ///< value − reference
  Estimate relative_change;  ///< difference / reference; not defined where the reference is 0
  double p = 1.0;            ///< two-sided: twice the smaller share of resamples on either side of no difference
};

using PairedScores = std::array<PairedScore, kResponseMetrics.size()>;

/// Bootstrap over questions, each with all its samples and both models' answers; the draws of score_benchmark.
PairedScores paired_scores(const ModelResponses& model, const ModelResponses& reference, std::int64_t questions,
                           std::uint64_t seed);

}  // namespace tadapt

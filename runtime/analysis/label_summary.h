// What the labels of chosen features say together: shares of classes and scores of descriptions, with intervals.
#pragma once

#include <array>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "runtime/analysis/label_questions.h"
#include "runtime/eval/bootstrap.h"

namespace tadapt {

/// `part` of `whole` with Wilson's 95 % interval, with z = 1.96 and p = part / whole:
/// (p + z²/2n ± z √(p(1−p)/n + z²/4n²)) / (1 + z²/n). NaN where `whole` is 0.
Estimate share_of(std::int64_t part, std::int64_t whole);
/// Mean with its normal 95 % interval, mean ± 1.96 s/√n, cut at 0 and 1; NaN: of no values, or an interval of one.
Estimate mean_of(const std::vector<double>& shares);

/// The questions of one task.
struct TaskTally {
  std::int64_t questions = 0;
  std::int64_t labelled = 0;
  std::int64_t unlabelled = 0;  ///< answered, but with no label that can be used
  std::int64_t open = 0;        ///< still to be asked
  double open_bytes = 0.0;      ///< of their messages

  std::int64_t answered() const { return labelled + unlabelled; }
};

struct LabelSummary {
  std::string adapters, model;
  std::int64_t chosen = 0, live = 0;  ///< features: asked about, and those among which they were drawn
  std::uint64_t seed = 0;
  LabelSkips skips;
  std::array<TaskTally, kLabelTaskNames.size()> tasks;
  std::array<TokensUsed, kLabelTaskNames.size()> used;  ///< by all answers that are kept
  std::map<std::string, std::int64_t> classes;          ///< "language", "reasoning/hesitation", … -> features
  std::vector<DetectionScore> detections;

  /// Counts one question of the source.
  void take(const LabelQuestion& question, const LabelSource& source);

  /// With "reasoning", that of its sub-classes together.
  std::int64_t features_of_class(std::string_view name) const;
  Estimate top_score() const;      ///< mean balanced_top over the features that have one
  Estimate uniform_score() const;  ///< mean balanced_uniform

  nlohmann::ordered_json to_json() const;
  std::string to_text() const;
};

/// What asking the open questions would take.
struct LabelPrices {
  double per_million_in = 0.0, per_million_out = 0.0;  ///< 0: not known
  double requests_per_minute = 0.0;                    ///< 0: no limit
};
/// Requests, tokens (a prompt's bytes / 4, answers as long as those that are kept, else a guess), cost and hours.
std::string forecast_text(const LabelSummary& summary, const LabelPrices& prices);

}  // namespace tadapt

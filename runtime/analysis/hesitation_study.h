// The hesitation experiment: what models do without the features that promote hesitation, with them alone, and with
// them taken from the target.
#pragma once

#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "runtime/analysis/hesitation_sets.h"
#include "runtime/eval/paired_scores.h"
#include "runtime/eval/question_set.h"

namespace tadapt {

struct HesitationRequest {
  QuestionRequest questions;
  std::filesystem::path adapters;  ///< anything load_adapters takes
  std::filesystem::path features;  ///< what was collected of these adapters
  HesitationRules rules = {};
};

/// One model of the experiment. "hybrid" is the adapter model without features and decoder bias: the target with base
/// MLPs where there are adapters.
struct StudyRow {
  std::string name;               ///< "adapter-without-both"
  std::string part;               ///< "reference", "necessity", "sufficiency", "transfer"
  std::string against;            ///< the row it is compared with
  std::string set;                ///< "both": what was removed, kept or taken; empty: nothing
  std::int64_t features = 0;      ///< in it
  double active_per_token = 0.0;  ///< of them, where they were collected
  PairedScores scores = {};

  const PairedScore& of(ResponseMetric metric) const { return scores[static_cast<std::size_t>(metric)]; }
};

struct HesitationStudy {
  nlohmann::ordered_json subject;  ///< questions, options, adapters
  std::int64_t questions = 0;
  HesitationSets sets;
  std::vector<StudyRow> rows;

  /// Null when there is none of this name.
  const StudyRow* find(const std::string& name) const;
};

/// Selects the sets (saved as sets/NAME.json in the questions' directory), asks every model, compares. An interrupted
/// study goes on. On rank 0 the whole study, elsewhere an empty one. Collective; the same for any rank count.
/// ConfigError when the features are those of other adapters, or no feature is in a set.
HesitationStudy run_hesitation_study(const HesitationRequest& request, const RunEnvironment& environment);

}  // namespace tadapt

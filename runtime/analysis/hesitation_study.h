// The hesitation experiment: what models do without the features that promote hesitation, with them alone, and with
// them taken from the target.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "runtime/bundle/feature_edit.h"
#include "runtime/eval/paired_scores.h"
#include "runtime/eval/question_set.h"

namespace tadapt {

struct HesitationRequest {
  QuestionRequest questions;
  std::filesystem::path adapters;               ///< anything load_adapters takes
  std::filesystem::path features;               ///< what was collected of these adapters
  std::vector<double> control_times{1.0, 2.0};  ///< sizes of controls, in hesitation sets
  std::uint64_t control_seed = 0;
};

/// One model of the experiment.
struct StudyRow {
  std::string name;           ///< "adapter-without-both"
  std::string part;           ///< "reference", "necessity", "sufficiency", "transfer"
  std::string against;        ///< the row it is compared with
  std::int64_t features = 0;  ///< in the set that was removed, kept or added
  PairedScores scores;
};

/// Something that the paper says of its models, and what came of it here.
struct StudyClaim {
  std::string text;
  std::string found;
  bool holds = false;
};

struct HesitationStudy {
  nlohmann::ordered_json subject;  ///< questions, options, rules
  std::int64_t live_features = 0, all_features = 0;
  std::int64_t output = 0, template_features = 0, both = 0;  ///< sizes of the sets
  std::vector<StudyRow> rows;
  std::vector<StudyClaim> claims;
};

/// Selects the sets (saved as sets/NAME.json in the questions' directory), asks every model, compares. An interrupted
/// study goes on. On rank 0 the whole study, elsewhere an empty one. Collective; the same for any rank count.
/// ConfigError when the features are those of other adapters, or no feature is in a set.
HesitationStudy run_hesitation_study(const HesitationRequest& request, const RunEnvironment& environment);

/// A table in Markdown, and the claims.
std::string to_markdown(const HesitationStudy& study);
std::string to_json(const HesitationStudy& study);

}  // namespace tadapt

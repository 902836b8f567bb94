// A hesitation study for readers: claims it decides, and tables in Markdown, CSV and JSON.
#pragma once

#include <string>
#include <vector>

#include "runtime/analysis/hesitation_study.h"

namespace tadapt {

/// Something that the paper says of its models, and what came of it here.
struct StudyClaim {
  std::string text;
  std::string found;
  bool holds = false;
};

/// The claims that the study decides; without a control of one size those that need it are not among them.
std::vector<StudyClaim> claims_of(const HesitationStudy& study);

std::string to_markdown(const HesitationStudy& study);
/// A line for each model and metric.
std::string to_csv(const HesitationStudy& study);
nlohmann::ordered_json to_json(const HesitationStudy& study);

}  // namespace tadapt

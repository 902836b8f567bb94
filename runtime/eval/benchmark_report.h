// BenchmarkReport: accuracy, length, hesitation and degeneration of models' responses, and what the adapters recover.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/eval/bootstrap.h"

namespace tadapt {

/// What is counted of one response, cut where it degenerates.
struct GradedResponse {
  std::int64_t question = 0;
  bool correct = false;
  bool degenerate = false;
  bool finished = false;  ///< it ended with a stop token
  std::int64_t tokens = 0;
  std::int64_t waits = 0;
  std::int64_t hesitations = 0;
};

struct ModelScores {
  std::string name;
  std::int64_t responses = 0;
  Estimate accuracy;  ///< share of correct responses
  double mean_tokens = 0.0;
  double median_tokens = 0.0;
  double wait_rate = 0.0;        ///< "wait" per 1,000 tokens of all responses
  double hesitation_rate = 0.0;  ///< "wait", "hmm", "but", "alternatively"
  double degenerate_share = 0.0;
  double unfinished_share = 0.0;  ///< ended by max_new_tokens or the last position
};

struct BenchmarkReport {
  std::int64_t questions = 0;
  std::vector<ModelScores> models;
  Estimate recovery_from_hybrid;  ///< (adapter − hybrid) / (target − hybrid), of accuracies
  Estimate recovery_from_base;    ///< (adapter − base) / (target − base)
  std::string base_refusal;       ///< why there is no base row; empty when there is one
};

/// One model's responses.
struct ModelResponses {
  std::string name;
  std::vector<GradedResponse> responses;
};

/// Scores of each model and recoveries, as far as their models are there. Intervals: percentile bootstrap over
/// questions, with all samples of a question and all models' answers to it together; 10,000 resamples drawn by (seed,
/// kBootstrap, resample). A resample in which the target is not better than its zero point has no recovery and is left
/// out.
BenchmarkReport score_benchmark(const std::vector<ModelResponses>& models, std::int64_t questions, std::uint64_t seed);

/// A table for people.
std::string to_table(const BenchmarkReport& report);
/// The report as JSON, behind the keys of `subject`; no clocks, hosts or paths.
std::string to_json(const BenchmarkReport& report, const nlohmann::ordered_json& subject);

}  // namespace tadapt

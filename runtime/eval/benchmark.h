// A benchmark from questions to scores: what base, hybrid, adapter model and target answer, and how much is recovered.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>

#include "runtime/bundle/feature_edit.h"
#include "runtime/eval/benchmark_report.h"
#include "runtime/model/generation.h"
#include "runtime/train/run_environment.h"
#include "runtime/train/run_options.h"

namespace tadapt {

struct BenchmarkRequest {
  const RunOptions& options;        ///< models, chat format, compute
  AdapterSource adapters;           ///< with an empty path: no adapter model
  std::filesystem::path questions;  ///< JSONL, as load_questions
  std::int64_t samples = 1;         ///< of each question
  GenerationOptions generation;     ///< stop tokens are the target's
  std::filesystem::path directory;  ///< where responses-MODEL.jsonl go, and are taken up from
};

struct Benchmark {
  nlohmann::ordered_json subject;  ///< questions and the options that decide the numbers
  BenchmarkReport report;
};

/// Every model answers every question; all of them draw the same random numbers. Responses are graded by is_correct()
/// and cut by degeneration(). On rank 0 the whole benchmark, elsewhere an empty one. Collective; the same numbers for
/// any rank count. ConfigError when models and adapters do not belong together or a question leaves no position for a
/// response.
Benchmark run_benchmark(const BenchmarkRequest& request, const RunEnvironment& environment);

}  // namespace tadapt

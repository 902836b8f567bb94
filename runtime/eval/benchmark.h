// A benchmark from questions to scores: what base, hybrid, adapter model and target answer, and how much is recovered.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include "runtime/bundle/feature_edit.h"
#include "runtime/eval/question_set.h"

namespace tadapt {

struct Benchmark {
  nlohmann::ordered_json subject;  ///< questions and the options that decide the numbers
  BenchmarkReport report;
};

/// Every model answers every question. `adapters` with an empty path: no adapter model. On rank 0 the whole benchmark,
/// elsewhere an empty one. Collective; the same numbers for any rank count. ConfigError when models and adapters do not
/// belong together or a question leaves no position for a response.
Benchmark run_benchmark(const QuestionRequest& request, const AdapterSource& adapters,
                        const RunEnvironment& environment);

}  // namespace tadapt

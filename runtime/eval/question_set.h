// QuestionSet: questions, and what models answer to them.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "runtime/eval/benchmark_report.h"
#include "runtime/eval/prompts.h"
#include "runtime/model/generation.h"
#include "runtime/train/run_environment.h"
#include "runtime/train/run_options.h"

namespace tadapt {

/// What is asked and how responses are drawn.
struct QuestionRequest {
  const RunOptions& options;        ///< models, chat format, compute
  std::filesystem::path questions;  ///< JSONL, as load_questions
  std::int64_t samples = 1;         ///< of each question
  GenerationOptions generation;     ///< stop tokens are the target's
  std::filesystem::path directory;  ///< where responses-NAME.jsonl go, and are taken up from
};

/// A model that is asked.
struct AskedModel {
  std::string name;  ///< "adapter", of rows and files
  GenerationModel model;
  std::string identity;  ///< of weights: responses of another are not taken up
};

class QuestionSet {
 public:
  /// Loads them. Collective. ConfigError when a question leaves the target no position for a response.
  QuestionSet(QuestionRequest request, const RunEnvironment& environment);

  std::int64_t size() const { return static_cast<std::int64_t>(questions_.size()); }
  const std::vector<Prompt>& prompts() const { return prompts_; }
  /// Hash of the questions and everything else that decides responses.
  const nlohmann::ordered_json& subject() const { return subject_; }

  /// The model's responses, graded by is_correct() and cut by degeneration(): on rank 0 all of them, elsewhere none.
  /// Every model draws the same random numbers. Collective; the same for any rank count.
  ModelResponses ask(const AskedModel& asked) const;

 private:
  QuestionRequest request_;
  const RunEnvironment& environment_;
  std::vector<Question> questions_;
  std::vector<Prompt> prompts_;
  std::optional<Tokenizer> tokenizer_;
  nlohmann::ordered_json subject_;
};

}  // namespace tadapt

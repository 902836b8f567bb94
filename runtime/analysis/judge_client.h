// Asking a judge behind an OpenAI-compatible endpoint: many questions at a time, patiently, at no more than a rate.
#pragma once

#include <cstdint>
#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>

#include "runtime/analysis/label_prompts.h"

namespace tadapt {

struct JudgeOptions {
  std::string endpoint;  ///< "https://api.openai.com/v1"
  std::string model;
  std::string key;                              ///< empty: none is sent. It is written nowhere
  std::string key_variable = "OPENAI_API_KEY";  ///< of the environment, where the key was looked for; for messages
  nlohmann::ordered_json members = nlohmann::ordered_json::object();  ///< more of every request
  int concurrency = 8;
  double requests_per_minute = 0.0;  ///< 0: any number
  double timeout_seconds = 120.0;
  int retries = 5;
  double retry_seconds = 1.0;  ///< before the first retry; twice as long before each further one, at most a minute
};

/// {model, messages, …members}: the body of a chat completion.
nlohmann::ordered_json request_body(const JudgeOptions& options, const LabelQuestion& question);

struct JudgeAnswer {
  std::string text;     ///< what the judge said; what the endpoint sent where no answer can be found in it
  std::string problem;  ///< why none can be found
  std::int64_t prompt_tokens = 0, answer_tokens = 0;
};

/// Finds the answer in the body of a chat completion; `problem` when there is none.
JudgeAnswer read_completion(const std::string& body);

struct JudgeWork {
  /// The next question; nothing behind the last.
  std::function<std::optional<LabelQuestion>()> next;
  /// What is wrong with an answer; empty: nothing.
  std::function<std::string(const LabelQuestion& question, const std::string& answer)> problem_of;
  /// Gets each question's answer once: the first without a problem, or the last one, with its problem. Tokens are those
  /// of all times that it was asked.
  std::function<void(const LabelQuestion& question, const JudgeAnswer& answer)> take;
  std::function<bool()> stop_requested;
  std::function<void(const std::string& line)> print;
};

/// Asks all questions, on one thread; false when a stop was asked for, which leaves the questions under way unanswered.
/// A question is asked again up to `retries` times: with growing pauses (Retry-After is obeyed, by all questions) when
/// the endpoint cannot be reached, is too slow, cuts the connection or answers 408, 429 or 5xx; at once when there is a
/// problem with its answer. ConfigError at once for any other status (400, 413 and 422 are a problem of one question
/// if others are answered), for a wrong URL and for a certificate that is not trusted; after the retries
/// WatchdogError for an endpoint that does not answer in time, CommError for the other failures. Each names URL and
/// what was found.
bool ask_judge(const JudgeOptions& options, const JudgeWork& work);

}  // namespace tadapt

// Responses of one model to many prompts: sampled by all ranks, kept as JSON lines, taken up again after an
// interruption.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "data/tokenizer.h"
#include "runtime/eval/prompts.h"
#include "runtime/model/generation.h"
#include "runtime/train/run_environment.h"

namespace tadapt {

/// One response.
struct Response {
  std::int64_t prompt = 0;  ///< index
  std::int64_t sample = 0;  ///< of that prompt
  std::vector<std::int32_t> ids;
  std::string reason;  ///< why it ended, by name
};

struct ResponseJob {
  std::string name;  ///< "benchmark: adapter", for progress
  const GenerationModel& model;
  const Tokenizer& tokenizer;
  const std::vector<Prompt>& prompts;
  std::int64_t samples = 1;  ///< of each prompt
  const GenerationOptions& options;
  std::string identity;        ///< of model and adapters; responses of another identity or options are not taken up
  std::filesystem::path file;  ///< where the lines go; empty: nowhere
  double progress_seconds = 5.0;
  std::function<void(std::int32_t token)> stream;  ///< hears the tokens of this rank's responses; may be empty
};

/// All responses in order of prompt, then sample, on rank 0 (none elsewhere). Collective; ranks take requests in turn.
///
/// Sample s of prompt p draws from stream s·2^32 + p, so neither ranks nor the number of samples change a response, nor
/// a line of the file. `file` holds a line each, in that order:
///   {"job": …, "prompt": p, "sample": s, "stop": …, "tokens": n, "ids": […], "conversations": […]}
/// and is thereby a corpus that eval can read. While responses are made they are kept in `file`.part-N, one a rank; a
/// job that is started again takes them up. ConfigError when `file` holds responses of another job.
std::vector<Response> sample_responses(const ResponseJob& job, const RunEnvironment& environment);

/// The lines of `file` as text, for printing.
std::string response_lines(const ResponseJob& job, const std::vector<Response>& responses);

/// The text of a response, with what the chat format wrote of it before.
std::string response_text(const ResponseJob& job, const Response& response, std::size_t tokens);

}  // namespace tadapt

// What models are asked: questions and prompts from files, as the tokens of a chat format, and where responses end.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "data/chat_format.h"
#include "data/file.h"
#include "data/tokenizer.h"
#include "runtime/model/decoder_config.h"

namespace tadapt {

struct Question {
  std::string question;
  std::string answer;      ///< empty where none is asked for
  std::string place = {};  ///< where it was found, for messages: "FILE: line 3"
};

/// What the lines of a file of questions must have.
enum class Answers { kNeeded, kIgnored };

/// Reads JSONL: `{"question": …, "answer": …}`; with Answers::kIgnored also `{"prompt": …}`. DataError naming file,
/// line and key; a file without any line is one too.
std::vector<Question> load_questions(FileSystem& files, const std::filesystem::path& path, Answers answers);

/// A question as a model gets it.
struct Prompt {
  std::string question;
  std::string opening;  ///< what the chat format writes of the response before the model does
  std::vector<std::int32_t> ids;
  std::string place;  ///< of the question
};

/// The prompts of a chat format, each ending where a response begins.
std::vector<Prompt> make_prompts(const std::vector<Question>& questions, ChatFormat format, const Tokenizer& tokenizer);

/// DataError naming place and both numbers for the first prompt that leaves a response no position in that model.
void require_room(const std::vector<Prompt>& prompts, const DecoderConfig& config);

/// Tokens that end a response of the model in `directory`: eos_token_id of generation_config.json (one or several), or
/// of config.json without it, and the tokenizer's EOS. ConfigError when there is none.
std::vector<std::int32_t> stop_tokens(FileSystem& files, const std::filesystem::path& directory,
                                      const Tokenizer& tokenizer);

}  // namespace tadapt

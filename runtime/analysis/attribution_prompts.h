// Prompts whose next token attribution explains, from files.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "data/chat_format.h"
#include "data/file.h"
#include "data/tokenizer.h"

namespace tadapt {

struct AttributionPrompt {
  std::string slug;   ///< name of its graph: letters, digits, '-', '_' and '.'
  std::string place;  ///< for messages
  std::string text;   ///< all of it, special tokens included
  std::vector<std::int32_t> ids;
};

/// A file, or all files of a folder in the order of their names, that end in
///   .txt    one prompt: its text as the model gets it, special tokens written out (BOS is put before it where the
///           tokenizer adds one and it is not there); one new line at the end is no part of it. The last token shows
///           what comes next and is dropped.
///   .jsonl  prompts as `generate --prompts` takes them: {"prompt": …} or {"question": …} a line, in the chat format.
/// MissingInputError when there is no such path or no such file; DataError naming the place for an empty prompt, for
/// one of less than two tokens, and for two of one slug.
std::vector<AttributionPrompt> read_attribution_prompts(FileSystem& files, const std::filesystem::path& path,
                                                        ChatFormat format, const Tokenizer& tokenizer);

}  // namespace tadapt

// A corpus of conversations: JSONL in the shape of OpenThoughts3.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "data/chat_format.h"
#include "data/file.h"

namespace tadapt {

struct Conversation {
  std::vector<Turn> turns;  ///< an optional system turn, then user and assistant by turns, assistant last; none empty
  std::string domain;       ///< empty when the line has none
};

/// One line of a corpus with its number, counted from 1.
struct CorpusLine {
  std::int64_t number = 0;
  std::string text;
};

/// Reads a corpus line by line, in memory proportional to its longest line.
class CorpusReader {
 public:
  /// MissingInputError when the file is not there.
  CorpusReader(FileSystem& files, const std::filesystem::path& path);

  /// False at the end. Blank lines at the end of the file are left out; DataError naming file and line for a blank line
  /// before that, for a line over 64 MiB, and for a file without any line.
  bool next(CorpusLine& line);

  const std::filesystem::path& path() const { return path_; }
  std::uint64_t bytes() const { return bytes_; }            ///< size of the file
  std::uint64_t bytes_read() const { return bytes_read_; }  ///< of them up to the end of the last line given

 private:
  bool read_line(std::string& line);
  void fill();

  std::filesystem::path path_;
  std::unique_ptr<File> file_;
  std::uint64_t bytes_ = 0, loaded_ = 0, bytes_read_ = 0;
  std::string block_;
  std::size_t at_ = 0;  // in block_
  std::int64_t lines_ = 0, given_ = 0;
};

/// Parses `{"conversations":[{"from":"human","value":…},{"from":"gpt","value":…}],"domain":…}`; "system" may come
/// first, "user" and "assistant" are taken for "human" and "gpt", other keys are left alone. DataError naming file,
/// line and key for malformed JSON, a missing key, a wrong order of roles and an empty text.
Conversation parse_conversation(const CorpusLine& line, const std::filesystem::path& path);

}  // namespace tadapt

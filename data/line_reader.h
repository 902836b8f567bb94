// LineReader: a text file line by line, whatever its size.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>

#include "data/file.h"

namespace tadapt {

class LineReader {
 public:
  LineReader(FileSystem& files, const std::filesystem::path& path) : file_(files.open(path, OpenMode::kRead)) {}

  /// The next line without its end; false behind the last. A last one without a line end is a line, too.
  bool next(std::string& line);
  /// Whether the line that next() gave had an end: only the last of a file may have none.
  bool ended() const { return ended_; }

 private:
  bool fill();

  std::unique_ptr<File> file_;
  std::uint64_t offset_ = 0;
  std::string buffer_;
  std::size_t place_ = 0;
  bool ended_ = true;
};

}  // namespace tadapt

#include "launcher/output_file.h"

namespace tadapt {

void require_writable(FileSystem& files, const std::filesystem::path& file) {
  // "file/." is there for folders only.
  if (files.exists(file / ".")) throw WriteError("{}: is a folder; expected the name of a file", file.string());
  std::filesystem::path trial = file;
  trial += ".tmp";
  files.open(trial, OpenMode::kCreate);
  files.remove(trial);
}

}  // namespace tadapt

#include "runtime/export/staged_directory.h"

#include "kernels/core/error.h"

namespace tadapt {
namespace fs = std::filesystem;

StagedDirectory::StagedDirectory(FileSystem& files, const fs::path& destination) : files_(files) {
  destination_ = fs::absolute(destination).lexically_normal();
  if (!destination_.has_filename()) destination_ = destination_.parent_path();
  // "file/." is there for folders only.
  if (files_.exists(destination_) && (!files_.exists(destination_ / ".") || !files_.list(destination_).empty()))
    throw WriteError("{}: is already there; choose another place or remove it", destination_.string());
  path_ = destination_;
  path_ += ".unfinished";
  files_.remove_all(path_);
  files_.make_directories(path_);
}

StagedDirectory::~StagedDirectory() {
  if (published_) return;
  try {
    files_.remove_all(path_);
  } catch (const Error&) {  // the next attempt tries again
  }
}

void StagedDirectory::publish() {
  files_.sync_directory(path_);
  files_.rename(path_, destination_);
  published_ = true;
  files_.sync_directory(destination_.parent_path());
}

}  // namespace tadapt

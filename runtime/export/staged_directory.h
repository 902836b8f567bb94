// StagedDirectory: a folder that appears under its name whole, or not at all.
#pragma once

#include <filesystem>

#include "data/file.h"

namespace tadapt {

class StagedDirectory {
 public:
  /// An empty folder beside `destination`, which must not be there or be an empty folder (WriteError otherwise). What
  /// an interrupted attempt left there is removed.
  StagedDirectory(FileSystem& files, const std::filesystem::path& destination);
  /// Removes the folder unless it was published.
  ~StagedDirectory();
  StagedDirectory(const StagedDirectory&) = delete;
  StagedDirectory& operator=(const StagedDirectory&) = delete;

  const std::filesystem::path& path() const { return path_; }
  /// Syncs the folder and gives it its name.
  void publish();

 private:
  FileSystem& files_;
  std::filesystem::path destination_, path_;
  bool published_ = false;
};

}  // namespace tadapt

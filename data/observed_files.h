// ObservedFileSystem: tells somebody of every transfer, so that long reading and writing shows as life, and is counted.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "data/file.h"

namespace tadapt {

/// What went between a file and memory.
struct FileTransfer {
  const std::filesystem::path& path;
  std::uint64_t read = 0, written = 0;  ///< bytes
};

/// Another file system that calls `on_transfer` after every read and write, on the thread that did it.
class ObservedFileSystem : public FileSystem {
 public:
  using Path = std::filesystem::path;

  using OnTransfer = std::function<void(const FileTransfer& transfer)>;

  /// `files` must outlive this one and the files that it opens.
  ObservedFileSystem(FileSystem& files, OnTransfer on_transfer) : files_(files), on_transfer_(std::move(on_transfer)) {}

  std::unique_ptr<File> open(const Path& path, OpenMode mode) override {
    return std::make_unique<Observed>(files_.open(path, mode), on_transfer_);
  }
  bool exists(const Path& path) override { return files_.exists(path); }
  std::uint64_t file_size(const Path& path) override { return files_.file_size(path); }
  std::vector<std::string> list(const Path& directory) override { return files_.list(directory); }
  void make_directories(const Path& directory) override { files_.make_directories(directory); }
  void rename(const Path& from, const Path& to) override { files_.rename(from, to); }
  void remove(const Path& path) override { files_.remove(path); }
  void remove_all(const Path& path) override { files_.remove_all(path); }
  void sync_directory(const Path& directory) override { files_.sync_directory(directory); }
  std::uint64_t free_bytes(const Path& path) override { return files_.free_bytes(path); }
  std::unique_ptr<FileLock> lock(const Path& path, std::string_view holder) override {
    return files_.lock(path, holder);
  }

 private:
  class Observed : public File {
   public:
    Observed(std::unique_ptr<File> file, const OnTransfer& on_transfer)
        : file_(std::move(file)), on_transfer_(on_transfer) {}
    const Path& path() const override { return file_->path(); }
    std::uint64_t size() const override { return file_->size(); }
    void read(std::uint64_t offset, std::span<std::byte> out) const override {
      file_->read(offset, out);
      on_transfer_({.path = file_->path(), .read = out.size()});
    }
    void write(std::uint64_t offset, std::span<const std::byte> bytes) override {
      file_->write(offset, bytes);
      on_transfer_({.path = file_->path(), .written = bytes.size()});
    }
    void truncate(std::uint64_t bytes) override { file_->truncate(bytes); }
    void preallocate(std::uint64_t bytes) override { file_->preallocate(bytes); }
    void sync() override { file_->sync(); }

   private:
    std::unique_ptr<File> file_;
    const OnTransfer& on_transfer_;
  };

  FileSystem& files_;
  OnTransfer on_transfer_;
};

}  // namespace tadapt

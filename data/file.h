// The one interface under everything that reads or writes files, so that tests can fail any single operation.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/core/error.h"

namespace tadapt {

/// The system would not read a file or folder that may well be whole (input/output error, stale handle, no permission):
/// unlike a file that is missing, cut off or wrong, this says nothing about what is on disk.
class ReadError : public MissingInputError {
  using MissingInputError::MissingInputError;
};

/// One open file. Every failure throws: WriteError (path, bytes, offset, reason) when writing, MissingInputError,
/// ReadError or DataError when reading.
class File {
 public:
  virtual ~File() = default;
  virtual const std::filesystem::path& path() const = 0;
  virtual std::uint64_t size() const = 0;
  /// Fills `out` from `offset`; reading past the end is a DataError that names offset, bytes wanted and file size.
  virtual void read(std::uint64_t offset, std::span<std::byte> out) const = 0;
  virtual void write(std::uint64_t offset, std::span<const std::byte> bytes) = 0;
  virtual void truncate(std::uint64_t bytes) = 0;
  /// Reserves space, so that a full disk shows before old data is touched. A file system without the call is no error.
  virtual void preallocate(std::uint64_t bytes) = 0;
  /// fsync.
  virtual void sync() = 0;
};

/// A held lock; released when destroyed (or when the process dies).
class FileLock {
 public:
  virtual ~FileLock() = default;
};

enum class OpenMode { kRead, kCreate, kReadWrite };  ///< kCreate truncates; kReadWrite needs an existing file

/// The operations on paths.
class FileSystem {
 public:
  virtual ~FileSystem() = default;
  virtual std::unique_ptr<File> open(const std::filesystem::path& path, OpenMode mode) = 0;
  /// ReadError when that cannot be told.
  virtual bool exists(const std::filesystem::path& path) = 0;
  virtual std::uint64_t file_size(const std::filesystem::path& path) = 0;
  /// Names (not paths) of a folder's entries, sorted.
  virtual std::vector<std::string> list(const std::filesystem::path& directory) = 0;
  virtual void make_directories(const std::filesystem::path& directory) = 0;
  virtual void rename(const std::filesystem::path& from, const std::filesystem::path& to) = 0;
  virtual void remove(const std::filesystem::path& path) = 0;      ///< no error when it is not there
  virtual void remove_all(const std::filesystem::path& path) = 0;  ///< no error when it is not there
  /// fsync of a folder, which makes renames and removals in it durable.
  virtual void sync_directory(const std::filesystem::path& directory) = 0;
  /// Bytes an unprivileged user may still write where `path` lies (its nearest existing parent).
  virtual std::uint64_t free_bytes(const std::filesystem::path& path) = 0;
  /// Takes an exclusive lock on a file that holds `holder` (text naming job, host, pid); WriteError naming the present
  /// holder when taken.
  virtual std::unique_ptr<FileLock> lock(const std::filesystem::path& path, std::string_view holder) = 0;
};

/// The operating system's files.
class RealFileSystem : public FileSystem {
 public:
  std::unique_ptr<File> open(const std::filesystem::path& path, OpenMode mode) override;
  bool exists(const std::filesystem::path& path) override;
  std::uint64_t file_size(const std::filesystem::path& path) override;
  std::vector<std::string> list(const std::filesystem::path& directory) override;
  void make_directories(const std::filesystem::path& directory) override;
  void rename(const std::filesystem::path& from, const std::filesystem::path& to) override;
  void remove(const std::filesystem::path& path) override;
  void remove_all(const std::filesystem::path& path) override;
  void sync_directory(const std::filesystem::path& directory) override;
  std::uint64_t free_bytes(const std::filesystem::path& path) override;
  std::unique_ptr<FileLock> lock(const std::filesystem::path& path, std::string_view holder) override;
};

/// A whole file as text; MissingInputError when it is not there, DataError when larger than `cap_bytes`.
std::string read_text(FileSystem& files, const std::filesystem::path& path, std::uint64_t cap_bytes = 1u << 30);
/// Writes `path`.tmp, syncs it, renames it, syncs the folder: readers see the old content or the new, never a part.
void write_atomically(FileSystem& files, const std::filesystem::path& path, std::string_view content);

/// CRC32C (Castagnoli), continuing from `seed` (0 to start).
std::uint32_t crc32c(std::span<const std::byte> bytes, std::uint32_t seed = 0);

}  // namespace tadapt

// RealFileSystem: the operating system's files, every failure turned into one line with path, bytes and reason.
#include "data/file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <system_error>
#include <utility>

#include "kernels/core/error.h"

namespace tadapt {
namespace {
namespace fs = std::filesystem;

std::string reason(int error) { return std::generic_category().message(error); }

bool is_absence(int error) { return error == ENOENT || error == ENOTDIR; }

[[noreturn]] void fail_to_read(const fs::path& path, const char* what, int error) {
  if (is_absence(error)) throw MissingInputError("{}: {}: {}", path.string(), what, reason(error));
  throw ReadError("{}: {}: {}", path.string(), what, reason(error));
}

/// Repeats a system call that a signal interrupted.
template <class Call>
auto uninterrupted(Call&& call) {
  auto result = call();
  while (result < 0 && errno == EINTR) result = call();
  return result;
}

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  Descriptor(Descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Descriptor& operator=(Descriptor&&) = delete;
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  int get() const { return fd_; }

 private:
  int fd_;
};

fs::path folder_of(const fs::path& path) { return path.has_parent_path() ? path.parent_path() : fs::path("."); }

class RealFile : public File {
 public:
  RealFile(fs::path path, Descriptor descriptor) : path_(std::move(path)), descriptor_(std::move(descriptor)) {}

  const fs::path& path() const override { return path_; }

  std::uint64_t size() const override {
    struct stat status{};
    if (::fstat(descriptor_.get(), &status) != 0) throw ReadError("{}: no size: {}", path_.string(), reason(errno));
    return static_cast<std::uint64_t>(status.st_size);
  }

  void read(std::uint64_t offset, std::span<std::byte> out) const override {
    std::size_t done = 0;
    while (done < out.size()) {
      const ssize_t got = uninterrupted([&] {
        return ::pread(descriptor_.get(), out.data() + done, out.size() - done, static_cast<off_t>(offset + done));
      });
      if (got < 0) {
        throw ReadError("{}: cannot read {} bytes at offset {}: {}", path_.string(), out.size(), offset, reason(errno));
      }
      if (got == 0) {
        throw DataError("{}: {} bytes wanted at offset {}, but the file has {}", path_.string(), out.size(), offset,
                        size());
      }
      done += static_cast<std::size_t>(got);
    }
  }

  void write(std::uint64_t offset, std::span<const std::byte> bytes) override {
    std::size_t done = 0;
    while (done < bytes.size()) {
      const ssize_t put = uninterrupted([&] {
        return ::pwrite(descriptor_.get(), bytes.data() + done, bytes.size() - done, static_cast<off_t>(offset + done));
      });
      if (put <= 0) {
        throw WriteError("{}: cannot write {} bytes at offset {}: {}", path_.string(), bytes.size(), offset,
                         put < 0 ? reason(errno) : "nothing was taken");
      }
      done += static_cast<std::size_t>(put);
    }
  }

  void truncate(std::uint64_t bytes) override {
    if (uninterrupted([&] { return ::ftruncate(descriptor_.get(), static_cast<off_t>(bytes)); }) != 0) {
      throw WriteError("{}: cannot set its size to {} bytes: {}", path_.string(), bytes, reason(errno));
    }
  }

  void preallocate(std::uint64_t bytes) override {
    if (bytes == 0) return;
    const int result = uninterrupted(
        [&] { return ::fallocate(descriptor_.get(), FALLOC_FL_KEEP_SIZE, 0, static_cast<off_t>(bytes)); });
    if (result != 0 && errno != EOPNOTSUPP && errno != ENOSYS) {
      throw WriteError("{}: cannot reserve {} bytes: {}", path_.string(), bytes, reason(errno));
    }
  }

  void sync() override {
    if (uninterrupted([&] { return ::fsync(descriptor_.get()); }) != 0) {
      throw WriteError("{}: its {} bytes cannot be brought to disk: {}", path_.string(), size(), reason(errno));
    }
  }

 private:
  fs::path path_;
  Descriptor descriptor_;
};

class RealLock : public FileLock {
 public:
  explicit RealLock(Descriptor descriptor) : descriptor_(std::move(descriptor)) {}

 private:
  Descriptor descriptor_;  // closing it gives the lock back
};

int open_flags(OpenMode mode) {
  // Without O_NONBLOCK, opening a named pipe would wait for its other end.
  switch (mode) {
    case OpenMode::kRead:
      return O_RDONLY | O_CLOEXEC | O_NONBLOCK;
    case OpenMode::kCreate:
      return O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC;
    case OpenMode::kReadWrite:
      return O_RDWR | O_CLOEXEC;
  }
  return O_RDONLY;
}

/// What the present holder of a lock wrote into it.
std::string lock_holder(int fd) {
  std::string text(512, '\0');
  const ssize_t got = ::pread(fd, text.data(), text.size(), 0);
  text.resize(got > 0 ? static_cast<std::size_t>(got) : 0);
  std::replace(text.begin(), text.end(), '\n', ' ');
  return text.empty() ? "a process that left no name" : text;
}
}  // namespace

std::unique_ptr<File> RealFileSystem::open(const fs::path& path, OpenMode mode) {
  Descriptor descriptor(uninterrupted([&] { return ::open(path.c_str(), open_flags(mode), 0666); }));
  if (descriptor.get() < 0) {
    if (mode == OpenMode::kRead || (mode == OpenMode::kReadWrite && errno == ENOENT)) {
      fail_to_read(path, "cannot be opened", errno);
    }
    throw WriteError("{}: cannot be opened for writing: {}", path.string(), reason(errno));
  }
  struct stat status{};
  if (mode != OpenMode::kCreate && (::fstat(descriptor.get(), &status) != 0 || !S_ISREG(status.st_mode))) {
    throw MissingInputError("{}: not a regular file", path.string());
  }
  return std::make_unique<RealFile>(path, std::move(descriptor));
}

bool RealFileSystem::exists(const fs::path& path) {
  std::error_code error;
  const bool there = fs::exists(path, error);
  if (error) fail_to_read(path, "cannot be looked at", error.value());
  return there;
}

std::uint64_t RealFileSystem::file_size(const fs::path& path) {
  std::error_code error;
  const std::uintmax_t size = fs::file_size(path, error);
  if (error) fail_to_read(path, "no size", error.value());
  return size;
}

std::vector<std::string> RealFileSystem::list(const fs::path& directory) {
  std::error_code error;
  std::vector<std::string> names;
  fs::directory_iterator entry(directory, error);
  for (const fs::directory_iterator end; !error && entry != end; entry.increment(error)) {
    names.push_back(entry->path().filename().string());
  }
  if (error) fail_to_read(directory, "cannot be listed", error.value());
  std::sort(names.begin(), names.end());
  return names;
}

void RealFileSystem::make_directories(const fs::path& directory) {
  std::error_code error;
  fs::create_directories(directory, error);
  if (error) throw WriteError("{}: cannot be made: {}", directory.string(), error.message());
}

void RealFileSystem::rename(const fs::path& from, const fs::path& to) {
  if (::rename(from.c_str(), to.c_str()) != 0) {
    throw WriteError("{}: cannot be renamed to {}: {}", from.string(), to.string(), reason(errno));
  }
}

void RealFileSystem::remove(const fs::path& path) {
  std::error_code error;
  fs::remove(path, error);
  if (error) throw WriteError("{}: cannot be removed: {}", path.string(), error.message());
}

void RealFileSystem::remove_all(const fs::path& path) {
  std::error_code error;
  fs::remove_all(path, error);
  if (error) throw WriteError("{}: cannot be removed: {}", path.string(), error.message());
}

void RealFileSystem::sync_directory(const fs::path& directory) {
  const fs::path folder = directory.empty() ? fs::path(".") : directory;
  const Descriptor descriptor(
      uninterrupted([&] { return ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC); }));
  const int result = descriptor.get() < 0 ? -1 : uninterrupted([&] { return ::fsync(descriptor.get()); });
  // Some network file systems answer EINVAL: they have no such call because their renames are durable already.
  if (result != 0 && errno != EINVAL) {
    throw WriteError("{}: folder cannot be brought to disk: {}", folder.string(), reason(errno));
  }
}

std::uint64_t RealFileSystem::free_bytes(const fs::path& path) {
  fs::path place = path.empty() ? fs::path(".") : path;
  while (!exists(place) && place != folder_of(place)) place = folder_of(place);
  struct statvfs status{};
  if (::statvfs(place.c_str(), &status) != 0) {
    throw WriteError("{}: free space unknown: {}", path.string(), reason(errno));
  }
  return static_cast<std::uint64_t>(status.f_bavail) * status.f_frsize;
}

std::unique_ptr<FileLock> RealFileSystem::lock(const fs::path& path, std::string_view holder) {
  Descriptor descriptor(uninterrupted([&] { return ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666); }));
  if (descriptor.get() < 0) throw WriteError("{}: cannot be opened for locking: {}", path.string(), reason(errno));
  if (uninterrupted([&] { return ::flock(descriptor.get(), LOCK_EX | LOCK_NB); }) != 0) {
    if (errno == EWOULDBLOCK) {
      throw WriteError("{}: already in use by {}", path.string(), lock_holder(descriptor.get()));
    }
    throw WriteError("{}: cannot be locked: {}", path.string(), reason(errno));
  }
  RealFile file(path, Descriptor(::dup(descriptor.get())));
  file.truncate(0);
  file.write(0, std::as_bytes(std::span(holder)));
  return std::make_unique<RealLock>(std::move(descriptor));
}

std::string read_text(FileSystem& files, const fs::path& path, std::uint64_t cap_bytes) {
  const std::unique_ptr<File> file = files.open(path, OpenMode::kRead);
  const std::uint64_t size = file->size();
  if (size > cap_bytes) throw DataError("{}: {} bytes, more than the {} allowed", path.string(), size, cap_bytes);
  std::string text(size, '\0');
  file->read(0, std::as_writable_bytes(std::span(text)));
  return text;
}

void write_atomically(FileSystem& files, const fs::path& path, std::string_view content) {
  fs::path temporary = path;
  temporary += ".tmp";
  {
    const std::unique_ptr<File> file = files.open(temporary, OpenMode::kCreate);
    file->write(0, std::as_bytes(std::span(content)));
    file->sync();
  }
  files.rename(temporary, path);
  files.sync_directory(folder_of(path));
}

}  // namespace tadapt

// A file system in memory that can fail any operation, stop at any operation, lose what was not synced, and run full.
//
// Model of a power loss: a file keeps its content as of its last sync(), and whichever of the later writes reached the
// disk, sector by sector; a folder keeps its entries as of its last sync_directory(), and the later changes up to some
// point of time (a rename is one change: old name or new, never both or none). Syncing a file does not sync its name.
#pragma once

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "data/file.h"
#include "kernels/core/error.h"
#include "kernels/core/random.h"

namespace tadapt::testing {

/// Thrown where the simulated machine stops. No std::exception: nothing that handles errors may see it.
struct SimulatedCrash {};

/// What of the unsynced changes is on disk after a power loss.
enum class Unsynced { kLost, kKept, kRandom };

/// Copies are independent, so that one prepared state can be used for many experiments. Not for several threads.
class FaultyFileSystem : public FileSystem {
 public:
  using Path = std::filesystem::path;
  using Bytes = std::vector<std::byte>;

  FaultyFileSystem() { nodes_[kRoot].is_directory = true; }

  // --- Faults.
  /// Operations (reads and queries that can fail included) since the start or the last power loss.
  std::int64_t operations() const { return operations_; }
  /// Operation number `operation` fails with this reason (a write after half of its bytes), later ones work again.
  void fail_at(std::int64_t operation, std::string reason) {
    fail_at_ = operation;
    reason_ = std::move(reason);
  }
  /// The machine stops after this many operations.
  void crash_after(std::int64_t operations) { crash_after_ = operations; }
  /// Syncs of the files and folders that `ignored` names report success and do nothing.
  void ignore_sync(std::function<bool(const Path&)> ignored) { ignore_sync_ = std::move(ignored); }
  /// Writing and reserving fail once all files together would exceed this.
  void limit_space(std::uint64_t bytes) { space_ = bytes; }
  std::uint64_t used_bytes() const { return bytes_below(kRoot); }
  /// The first word of the operation that fail_at made fail: "write", "sync", …
  const std::string& failed_operation() const { return failed_operation_; }
  /// Switches the power off and on: unsynced changes as `what` says, all faults gone.
  void lose_power(Unsynced what, std::uint64_t seed = 0) {
    std::uint32_t draw = 0;
    const RandomStream random(seed, RandomPurpose::kTest, 0, 0);
    const auto coin = [&] {
      return what == Unsynced::kKept || (what == Unsynced::kRandom && random.uniform(draw++) < 0.5f);
    };
    for (auto& [id, node] : nodes_) {
      node.lose_unsynced_content(coin);
      node.lose_unsynced_entries(coin);
    }
    *this = FaultyFileSystem(std::move(nodes_), next_);
  }
  /// A file's bytes, for a test to damage.
  Bytes& content(const Path& path) { return nodes_.at(find(path)).content; }

  // --- FileSystem.
  std::unique_ptr<File> open(const Path& path, OpenMode mode) override {
    if (mode == OpenMode::kCreate) {
      step<WriteError>(path, "create");
    } else {
      step<ReadError>(path, "open");
    }
    int id = find(path);
    if (id == kNone && mode != OpenMode::kCreate) throw MissingInputError("{}: not there", path.string());
    if (id == kNone) {
      id = next_++;
      nodes_[id];
      change(path, id);
    } else if (mode == OpenMode::kCreate) {
      nodes_[id].truncate(0);
    }
    if (nodes_[id].is_directory) throw MissingInputError("{}: a folder", path.string());
    return std::make_unique<OpenFile>(*this, path, id);
  }
  bool exists(const Path& path) override { return find(path) != kNone; }
  std::uint64_t file_size(const Path& path) override {
    step<ReadError>(path, "stat");
    return nodes_.at(existing(path)).content.size();
  }
  std::vector<std::string> list(const Path& directory) override {
    step<ReadError>(directory, "list");
    std::vector<std::string> names;
    for (const auto& [name, id] : nodes_.at(existing(directory)).entries) names.push_back(name);
    return names;
  }
  void make_directories(const Path& directory) override {
    Path path;
    for (const Path& part : directory.lexically_normal()) {
      path /= part;
      if (find(path) != kNone) continue;
      step<WriteError>(path, "make");
      nodes_[next_].is_directory = true;
      change(path, next_++);
    }
  }
  void rename(const Path& from, const Path& to) override {
    step<WriteError>(from, "rename");
    if (find(from) == kNone) throw WriteError("{}: not there", from.string());
    const int old = find(to);
    if (old != kNone && nodes_[old].is_directory && !nodes_[old].entries.empty()) {
      throw WriteError("{}: cannot be renamed to {}: Directory not empty", from.string(), to.string());
    }
    if (from.parent_path() != to.parent_path()) throw WriteError("{}: renamed to another folder", from.string());
    Node& folder = nodes_.at(existing(from.parent_path()));
    folder.change({{from.filename(), kNone}, {to.filename(), find(from)}});
  }
  void remove(const Path& path) override {
    if (find(path) == kNone) return;
    step<WriteError>(path, "remove");
    if (!nodes_[find(path)].entries.empty()) throw WriteError("{}: cannot be removed: not empty", path.string());
    change(path, kNone);
  }
  void remove_all(const Path& path) override {
    if (find(path) == kNone) return;
    for (const auto entries = nodes_[find(path)].entries; const auto& [name, id] : entries) remove_all(path / name);
    remove(path);
  }
  void sync_directory(const Path& directory) override {
    step<WriteError>(directory, "sync");
    Node& node = nodes_.at(existing(directory));
    if (ignores_sync(directory)) return;
    node.durable_entries = node.entries;
    node.changes.clear();
  }
  std::uint64_t free_bytes(const Path&) override { return space_ - std::min(space_, used_bytes()); }
  std::unique_ptr<FileLock> lock(const Path&, std::string_view) override { return std::make_unique<FileLock>(); }

 private:
  static constexpr int kRoot = 0, kNone = -1;
  static constexpr std::size_t kSectorBytes = 512;

  struct Write {
    std::uint64_t offset = 0;
    Bytes bytes;
    bool is_truncation = false;  // to `offset` bytes
  };
  using Change = std::vector<std::pair<std::string, int>>;

  struct Node {
    bool is_directory = false;
    Bytes content, durable_content;
    std::vector<Write> writes;  // since the last sync
    std::map<std::string, int> entries, durable_entries;
    std::vector<Change> changes;  // since the last sync

    static void put(Bytes& target, std::uint64_t offset, std::span<const std::byte> bytes) {
      if (target.size() < offset + bytes.size()) target.resize(offset + bytes.size());
      std::copy(bytes.begin(), bytes.end(), target.begin() + static_cast<std::ptrdiff_t>(offset));
    }
    static void apply(std::map<std::string, int>& entries, const Change& change) {
      for (const auto& [name, id] : change) {
        if (id == kNone) {
          entries.erase(name);
        } else {
          entries[name] = id;
        }
      }
    }
    void write(std::uint64_t offset, std::span<const std::byte> bytes) {
      put(content, offset, bytes);
      writes.push_back({offset, Bytes(bytes.begin(), bytes.end())});
    }
    void truncate(std::uint64_t bytes) {
      content.resize(bytes);
      writes.push_back({bytes, {}, true});
    }
    void change(const Change& change) {
      apply(entries, change);
      changes.push_back(change);
    }
    template <class Coin>
    void lose_unsynced_content(const Coin& coin) {
      for (const Write& write : writes) {
        if (write.is_truncation && coin()) durable_content.resize(write.offset);
        for (std::size_t at = 0; at < write.bytes.size(); at += kSectorBytes) {
          const std::span sector = std::span(write.bytes).subspan(at, std::min(kSectorBytes, write.bytes.size() - at));
          if (coin()) put(durable_content, write.offset + at, sector);
        }
      }
      content = durable_content;
      writes.clear();
    }
    template <class Coin>
    void lose_unsynced_entries(const Coin& coin) {
      for (const Change& change : changes) {
        if (!coin()) break;
        apply(durable_entries, change);
      }
      entries = durable_entries;
      changes.clear();
    }
  };

  class OpenFile : public File {
   public:
    OpenFile(FaultyFileSystem& system, Path path, int id) : system_(system), path_(std::move(path)), id_(id) {}
    const Path& path() const override { return path_; }
    std::uint64_t size() const override { return node().content.size(); }
    void read(std::uint64_t offset, std::span<std::byte> out) const override {
      system_.step<ReadError>(path_, "read");
      const Bytes& content = node().content;
      if (offset > content.size() || out.size() > content.size() - offset) {
        throw DataError("{}: {} bytes wanted at offset {}, but the file has {}", path_.string(), out.size(), offset,
                        content.size());
      }
      std::copy_n(content.begin() + static_cast<std::ptrdiff_t>(offset), out.size(), out.begin());
    }
    void write(std::uint64_t offset, std::span<const std::byte> bytes) override {
      const std::string what = fmt::format("write {} bytes at offset {}", bytes.size(), offset);
      try {
        system_.step<WriteError>(path_, what);
      } catch (const WriteError&) {
        node().write(offset, bytes.first(bytes.size() / 2));
        throw;
      }
      const std::uint64_t growth = offset + bytes.size() - std::min(offset + bytes.size(), size());
      if (growth > system_.free_bytes(path_)) {
        throw WriteError("{}: cannot {}: No space left on device", path_.string(), what);
      }
      node().write(offset, bytes);
    }
    void truncate(std::uint64_t bytes) override {
      system_.step<WriteError>(path_, "truncate");
      node().truncate(bytes);
    }
    void preallocate(std::uint64_t bytes) override {
      system_.step<WriteError>(path_, "reserve");
      if (bytes > size() + system_.free_bytes(path_)) {
        throw WriteError("{}: cannot reserve {} bytes: No space left on device", path_.string(), bytes);
      }
    }
    void sync() override {
      system_.step<WriteError>(path_, "sync");
      if (system_.ignores_sync(path_)) return;
      node().durable_content = node().content;
      node().writes.clear();
    }

   private:
    Node& node() const { return system_.nodes_.at(id_); }
    FaultyFileSystem& system_;
    Path path_;
    int id_;
  };

  FaultyFileSystem(std::map<int, Node> nodes, int next) : nodes_(std::move(nodes)), next_(next) {}

  template <class Failure>
  void step(const Path& path, const std::string& what) {
    if (operations_ >= crash_after_) throw SimulatedCrash{};
    if (++operations_ != fail_at_) return;
    failed_operation_ = what.substr(0, what.find(' '));
    throw Failure("{}: cannot {}: {}", path.string(), what, reason_);
  }
  bool ignores_sync(const Path& path) const { return ignore_sync_ && ignore_sync_(path); }

  std::uint64_t bytes_below(int id) const {
    std::uint64_t sum = nodes_.at(id).content.size();
    for (const auto& [name, child] : nodes_.at(id).entries) sum += bytes_below(child);
    return sum;
  }
  int find(const Path& path) const {
    int id = kRoot;
    for (const Path& part : path.lexically_normal()) {
      if (part.empty() || part == "/" || part == ".") continue;
      const auto& entries = nodes_.at(id).entries;
      const auto found = entries.find(part.string());
      if (found == entries.end()) return kNone;
      id = found->second;
    }
    return id;
  }
  int existing(const Path& path) const {
    const int id = find(path);
    if (id == kNone) throw MissingInputError("{}: not there", path.string());
    return id;
  }
  void change(const Path& path, int id) {
    nodes_.at(existing(path.parent_path())).change({{path.filename().string(), id}});
  }

  std::map<int, Node> nodes_;
  int next_ = kRoot + 1;
  std::int64_t operations_ = 0, fail_at_ = -1, crash_after_ = INT64_MAX;
  std::uint64_t space_ = std::uint64_t{1} << 40;
  std::string reason_, failed_operation_;
  std::function<bool(const Path&)> ignore_sync_;
};

}  // namespace tadapt::testing

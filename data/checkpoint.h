// Checkpoints on disk: written so that a crash at any moment leaves the old one or the new one, read so that damage is
// named. Knows nothing of what the tensors and the state mean, nor of ranks: the caller gathers records and decides who
// calls what.
//
//   <directory>/step-000001234/   one safetensors file per part, state.json, MANIFEST (checksums of all, and of itself)
//   <directory>/step-000001234.tmp/   being written or being removed: never read, removed by the next prepare()
//   <directory>/LATEST            name of the newest: a hint for people, never used for loading
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "data/checkpoint_manifest.h"
#include "data/file.h"
#include "data/safetensors.h"
#include "kernels/core/context.h"

namespace tadapt {

/// Writes one checkpoint: prepare() on one rank; then, in any order and on any rank (each with a writer of its own),
/// write_part(); then, with all records gathered, commit() and prune() on one rank. The bytes follow from the arguments
/// alone. Each call throws WriteError (path, bytes, reason) when it fails, and older checkpoints are then untouched.
class CheckpointWriter {
 public:
  CheckpointWriter(FileSystem& files, std::filesystem::path directory, std::int64_t step);

  /// Removes what interrupted saves left (any step-*.tmp: one save at a time) and makes the folder for this one.
  void prepare();
  /// Writes and syncs one file. Space for it is reserved first.
  PartRecord write_part(const std::string& name, const NamedTensors& tensors,
                        const std::map<std::string, std::string>& metadata = {});
  /// Writes state.json (`state` is any JSON object) and then MANIFEST, reads everything back, gives the folder its
  /// final name, and returns that. A step that is there already is not replaced: the new one becomes step-000001234.2,
  /// newer than it.
  std::filesystem::path commit(const std::vector<PartRecord>& parts, const nlohmann::json& state);
  /// After commit(): removes what is older than the newest `keep` (at least 1) checkpoints that verify. Damaged ones do
  /// not count. Those in `verified` are known to verify and not read again.
  void prune(int keep, const std::set<std::filesystem::path>& verified = {});

 private:
  std::filesystem::path published_name() const;

  FileSystem& files_;
  std::filesystem::path directory_, temporary_, committed_;
  std::int64_t step_;
};

struct CheckpointInfo {
  std::filesystem::path path;
  std::int64_t step = 0;
  nlohmann::json state;
  std::map<std::string, SafetensorsRecord> parts;  ///< by file name
};

/// A part in memory of its own.
struct CheckpointPart {
  std::map<std::string, Buffer> tensors;
  std::map<std::string, std::string> metadata;
};

/// Checkpoints in a folder (which need not exist), newest first, unverified.
std::vector<std::filesystem::path> list_checkpoints(FileSystem& files, const std::filesystem::path& directory);

/// Manifest and state, checked; the parts are not looked at. DataError or MissingInputError says what is wrong,
/// FormatVersionError that another version wrote it.
CheckpointInfo open_checkpoint(FileSystem& files, const std::filesystem::path& path);

/// As open_checkpoint, and reads every byte of every part; the error names file and tensor.
CheckpointInfo verify_checkpoint(FileSystem& files, const std::filesystem::path& path);

using OnRejected = std::function<void(const std::filesystem::path& path, const std::string& reason)>;

/// The newest checkpoint that verifies; `on_rejected` hears of each newer one that does not. Nothing when there is no
/// checkpoint at all. DataError naming them all when there are some and none verifies; ReadError when one cannot be
/// read, for it may be whole; FormatVersionError when the newest intact one is of another version.
std::optional<CheckpointInfo> find_checkpoint(FileSystem& files, const std::filesystem::path& directory,
                                              const OnRejected& on_rejected);

/// Reads one part and compares it with its record again. DataError naming file and tensor.
CheckpointPart read_part(FileSystem& files, const CheckpointInfo& checkpoint, const std::string& name);

}  // namespace tadapt

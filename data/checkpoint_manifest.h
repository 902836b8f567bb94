// The MANIFEST of a checkpoint: what files it has, and the checksums that say whether they are whole.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>

#include "data/file.h"
#include "data/safetensors.h"
#include "kernels/core/error.h"

namespace tadapt {

/// Version of everything inside a checkpoint. Another one is refused, naming both.
inline constexpr std::uint64_t kCheckpointFormatVersion = 1;
inline constexpr const char* kManifestName = "MANIFEST";
inline constexpr const char* kStateName = "state.json";

/// An intact checkpoint of another format version: no reason to fall back to an older one silently.
class FormatVersionError : public DataError {
  using DataError::DataError;
};

/// A file of a checkpoint as its writer knows it; ranks send it to the one that commits as to_json().
struct PartRecord {
  std::string name;
  SafetensorsRecord content;

  std::string to_json() const;
  static PartRecord from_json(const std::string& text);
};

struct CheckpointManifest {
  std::int64_t step = 0;
  std::map<std::string, SafetensorsRecord> files;  ///< state.json among them, with no tensors

  /// JSON that also holds the CRC32C of the rest of itself. Equal manifests give equal bytes.
  std::string to_text() const;
  /// DataError naming `source` unless the text is, byte for byte, what to_text gives and its claims are possible: plain
  /// file names, tensors inside their file, none over another. FormatVersionError when the text is whole but of another
  /// version.
  static CheckpointManifest from_text(std::string_view text, const std::filesystem::path& source);
};

/// Throws DataError naming `path` unless `name` is a plain file name that a part may have.
void check_part_name(const std::string& name, const std::filesystem::path& path);

/// Reads a whole file in pieces and compares its size and all its checksums. DataError naming the file and the first
/// tensor that is damaged or cut off.
void verify_file(FileSystem& files, const std::filesystem::path& path, const SafetensorsRecord& expected);

}  // namespace tadapt

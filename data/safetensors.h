// safetensors files: reading one through a memory map, and writing one.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "data/file.h"
#include "data/mapped_file.h"
#include "data/safetensors_header.h"
#include "kernels/core/context.h"
#include "kernels/core/tensor.h"

namespace tadapt {

/// One safetensors file, mapped read-only while this object lives.
class SafetensorsFile {
 public:
  /// MissingInputError when it cannot be opened; DataError when anything in its header is wrong.
  explicit SafetensorsFile(const std::filesystem::path& path);

  const std::filesystem::path& path() const { return map_.path(); }
  const SafetensorsHeader& header() const { return header_; }
  /// The bytes that the header's offsets count from.
  std::span<const std::byte> data() const { return map_.bytes().subspan(header_.data_start); }
  std::vector<std::string> names() const;  ///< sorted
  bool contains(const std::string& name) const { return header_.tensors.contains(name); }

  /// A view of the file's own bytes, to be read only: a write through it faults. Numbers that the file does not place
  /// at a multiple of their size are copied once into aligned memory of this object. May be called from several
  /// threads. DataError when there is no such tensor, or one of a type we do not read.
  Tensor tensor(const std::string& name) const;

 private:
  MappedFile map_;
  SafetensorsHeader header_;
  mutable std::mutex copies_mutex_;
  mutable std::map<std::string, Buffer> copies_;
};

/// Host tensors by name. Views: whoever fills it keeps the memory.
using NamedTensors = std::map<std::string, Tensor>;

/// Where in a file a tensor's bytes lie, and their CRC32C.
struct TensorRecord {
  std::uint64_t offset = 0;  ///< from the start of the file
  std::uint64_t bytes = 0;
  std::uint32_t crc32c = 0;
};

/// What write_safetensors wrote.
struct SafetensorsRecord {
  std::uint64_t bytes = 0;
  std::uint32_t crc32c = 0;  ///< of the whole file
  std::map<std::string, TensorRecord> tensors;
};

/// Writes and syncs (the file, not its folder) a safetensors file. Space is reserved first. Tensors stand in order of
/// falling element size, then name, after a header padded with spaces to 8 bytes, so every number is aligned; equal
/// input gives equal bytes. Throws what `files` throws; ShapeError for a tensor that is not in host memory.
SafetensorsRecord write_safetensors(FileSystem& files, const std::filesystem::path& path, const NamedTensors& tensors,
                                    const std::map<std::string, std::string>& metadata = {});

}  // namespace tadapt

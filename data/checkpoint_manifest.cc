// Manifests to and from text, and the comparison of a file with its record.
#include "data/checkpoint_manifest.h"

#include <algorithm>
#include <charconv>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <vector>

#include "data/json.h"

namespace tadapt {
namespace {
namespace fs = std::filesystem;
using nlohmann::json;

std::string hex(std::uint32_t crc) { return fmt::format("{:08x}", crc); }

/// Reads values of a parsed manifest; what is missing or of another type is a DataError of `source`.
struct Reader {
  const fs::path& source;

  const json& at(const json& object, const char* key) const {
    if (!object.is_object() || !object.contains(key)) throw DataError("{}: no \"{}\"", source.string(), key);
    return object[key];
  }
  std::uint64_t number(const json& object, const char* key) const {
    const json& value = at(object, key);
    if (!value.is_number_unsigned() || value.get<std::uint64_t>() > INT64_MAX) {
      throw DataError("{}: \"{}\" is not a count", source.string(), key);
    }
    return value.get<std::uint64_t>();
  }
  std::uint32_t checksum(const json& object) const {
    const json& value = at(object, "crc32c");
    std::uint32_t crc = 0;
    if (value.is_string()) {
      const auto& text = value.get_ref<const std::string&>();
      const auto parsed = std::from_chars(text.data(), text.data() + text.size(), crc, 16);
      if (parsed.ec == std::errc() && text == hex(crc)) return crc;
    }
    throw DataError("{}: \"crc32c\" is not a checksum of 8 hexadecimal digits", source.string());
  }
  const json& object(const json& parent, const char* key) const {
    const json& value = at(parent, key);
    if (!value.is_object()) throw DataError("{}: \"{}\" is not an object", source.string(), key);
    return value;
  }
};

json record_json(const SafetensorsRecord& record) {
  json tensors = json::object();
  for (const auto& [name, tensor] : record.tensors) {
    tensors[name] = {{"offset", tensor.offset}, {"bytes", tensor.bytes}, {"crc32c", hex(tensor.crc32c)}};
  }
  return {{"bytes", record.bytes}, {"crc32c", hex(record.crc32c)}, {"tensors", tensors}};
}

struct PlacedTensor {
  const std::string* name;
  TensorRecord record;
};

std::vector<PlacedTensor> by_offset(const SafetensorsRecord& record) {
  std::vector<PlacedTensor> placed;
  for (const auto& [name, tensor] : record.tensors) placed.push_back({&name, tensor});
  std::sort(placed.begin(), placed.end(), [](const PlacedTensor& a, const PlacedTensor& b) {
    return std::pair(a.record.offset, a.record.bytes) < std::pair(b.record.offset, b.record.bytes);
  });
  return placed;
}

SafetensorsRecord record_from(const json& value, const Reader& read) {
  SafetensorsRecord record{read.number(value, "bytes"), read.checksum(value), {}};
  for (const auto& [name, tensor] : read.object(value, "tensors").items()) {
    record.tensors[name] = {read.number(tensor, "offset"), read.number(tensor, "bytes"), read.checksum(tensor)};
  }
  std::uint64_t end = 0;
  for (const PlacedTensor& tensor : by_offset(record)) {
    if (tensor.record.offset < end ||
        tensor.record.bytes > record.bytes - std::min(record.bytes, tensor.record.offset)) {
      throw DataError("{}: tensor {} overlaps another or leaves its file", read.source.string(),
                      in_quotes(*tensor.name));
    }
    end = tensor.record.offset + tensor.record.bytes;
  }
  return record;
}

std::string dumped(const json& value) { return value.dump(1) + "\n"; }

/// Reads a file in pieces, keeping the checksum of all that was read.
class FileChecksum {
 public:
  explicit FileChecksum(const File& file) : file_(file) {}

  /// Goes on to `end`; the checksum of just these bytes.
  std::uint32_t advance(std::uint64_t end) {
    constexpr std::uint64_t kPieceBytes = 4u << 20;
    std::uint32_t crc = 0;
    while (position_ < end) {
      buffer_.resize(std::min(kPieceBytes, end - position_));
      file_.read(position_, buffer_);
      crc = crc32c(buffer_, crc);
      total_ = crc32c(buffer_, total_);
      position_ += buffer_.size();
    }
    return crc;
  }
  std::uint32_t total() const { return total_; }

 private:
  const File& file_;
  std::uint64_t position_ = 0;
  std::uint32_t total_ = 0;
  std::vector<std::byte> buffer_;
};

void check_size(const File& file, const SafetensorsRecord& expected, const std::vector<PlacedTensor>& tensors) {
  const std::uint64_t size = file.size();
  if (size == expected.bytes) return;
  for (const PlacedTensor& tensor : tensors) {
    if (tensor.record.bytes > 0 && tensor.record.offset + tensor.record.bytes > size) {
      throw DataError("{}: {} bytes instead of {}: tensor {} is cut off", file.path().string(), size, expected.bytes,
                      in_quotes(*tensor.name));
    }
  }
  throw DataError("{}: {} bytes instead of {}", file.path().string(), size, expected.bytes);
}
/// Folders and a file in them, none hidden and none above.
void check_listed_name(const std::string& name, const fs::path& path) {
  bool plain = true;
  for (std::size_t begin = 0; begin <= name.size();) {
    const std::size_t end = std::min(name.find('/', begin), name.size());
    plain = plain && end > begin && name[begin] != '.';
    begin = end + 1;
  }
  if (!plain || name.find('\0') != name.npos || name == kManifestName || name == kStateName)
    throw DataError("{}: {} cannot be the name of a part", path.string(), in_quotes(name));
}

}  // namespace

std::string PartRecord::to_json() const { return json{{"name", name}, {"content", record_json(content)}}.dump(); }

PartRecord PartRecord::from_json(const std::string& text) {
  const fs::path source = "checkpoint part record";
  const json value = parse_json(text, source);
  const Reader read{source};
  const json& name = read.at(value, "name");
  if (!name.is_string()) throw DataError("{}: its name is no text", source.string());
  return {name.get<std::string>(), record_from(read.at(value, "content"), read)};
}

std::string CheckpointManifest::to_text() const {
  json value = {{"format_version", kCheckpointFormatVersion}, {"step", step}, {"files", json::object()}};
  for (const auto& [name, record] : files) value["files"][name] = record_json(record);
  const std::string rest = dumped(value);
  value["crc32c"] = hex(crc32c(std::as_bytes(std::span(rest))));
  return dumped(value);
}

CheckpointManifest CheckpointManifest::from_text(std::string_view text, const fs::path& source) {
  const json whole = parse_json(text, source);
  const Reader read{source};
  const std::uint32_t expected = read.checksum(whole);
  json value = whole;
  value.erase("crc32c");
  const std::string rest = dumped(value);
  const std::uint32_t found = crc32c(std::as_bytes(std::span(rest)));
  if (found != expected || dumped(whole) != text) {
    throw DataError("{}: is damaged: its CRC32C is {}, it says {}", source.string(), hex(found), hex(expected));
  }
  if (const std::uint64_t version = read.number(value, "format_version"); version != kCheckpointFormatVersion) {
    throw FormatVersionError("{}: checkpoint format version {}, but this tadapt reads version {}", source.string(),
                             version, kCheckpointFormatVersion);
  }
  CheckpointManifest manifest;
  manifest.step = static_cast<std::int64_t>(read.number(value, "step"));
  for (const auto& [name, record] : read.object(value, "files").items()) {
    if (name != kStateName) check_listed_name(name, source);
    manifest.files[name] = record_from(record, read);
  }
  return manifest;
}

void check_part_name(const std::string& name, const fs::path& path) {
  if (name.find('/') != name.npos)
    throw DataError("{}: {} cannot be the name of a part", path.string(), in_quotes(name));
  check_listed_name(name, path);
}

void verify_file(FileSystem& files, const fs::path& path, const SafetensorsRecord& expected) {
  const std::unique_ptr<File> file = files.open(path, OpenMode::kRead);
  const std::vector<PlacedTensor> tensors = by_offset(expected);
  check_size(*file, expected, tensors);
  FileChecksum checksum(*file);
  for (const PlacedTensor& tensor : tensors) {
    checksum.advance(tensor.record.offset);
    const std::uint32_t found = checksum.advance(tensor.record.offset + tensor.record.bytes);
    if (found != tensor.record.crc32c) {
      throw DataError("{}: tensor {} is damaged: its CRC32C is {}, the manifest says {}", path.string(),
                      in_quotes(*tensor.name), hex(found), hex(tensor.record.crc32c));
    }
  }
  checksum.advance(expected.bytes);
  if (checksum.total() != expected.crc32c) {
    throw DataError("{}: {} is damaged: the file's CRC32C is {}, the manifest says {}", path.string(),
                    tensors.empty() ? "its content" : "its header", hex(checksum.total()), hex(expected.crc32c));
  }
}

}  // namespace tadapt

// Finding, verifying and reading checkpoints.
#include "data/checkpoint.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <memory>
#include <utility>

#include "data/checkpoint_names.h"
#include "data/json.h"
#include "kernels/core/error.h"

namespace tadapt {
namespace {
namespace fs = std::filesystem;
constexpr std::uint64_t kTextCapBytes = 1u << 30;

nlohmann::json read_state(FileSystem& files, const fs::path& path, const CheckpointManifest& manifest) {
  const auto record = manifest.files.find(kStateName);
  if (record == manifest.files.end()) throw DataError("{}: its manifest has no {}", path.string(), kStateName);
  const fs::path file = path / kStateName;
  verify_file(files, file, record->second);
  nlohmann::json whole = parse_json(read_text(files, file, kTextCapBytes), file);
  if (!whole.is_object() || whole.value("format_version", nlohmann::json()) != kCheckpointFormatVersion ||
      whole.value("step", nlohmann::json()) != manifest.step || !whole["state"].is_object()) {
    throw DataError("{}: not the state of step {} in format version {}", file.string(), manifest.step,
                    kCheckpointFormatVersion);
  }
  return std::move(whole["state"]);
}

/// Size and header of a part, checked against its record.
SafetensorsHeader read_header(const File& file, const SafetensorsRecord& record, std::string& bytes) {
  if (file.size() != record.bytes) {
    throw DataError("{}: {} bytes instead of {}", file.path().string(), file.size(), record.bytes);
  }
  std::array<std::byte, kSafetensorsPrefixBytes> prefix{};
  if (file.size() >= prefix.size()) file.read(0, prefix);
  const std::uint64_t length = safetensors_header_bytes(prefix, file.size(), file.path());
  bytes.resize(prefix.size() + length);
  file.read(0, std::as_writable_bytes(std::span(bytes)));
  return parse_safetensors_header(std::string_view(bytes).substr(prefix.size()), file.size(), file.path());
}

using NamedEntry = std::pair<std::string, TensorEntry>;

std::vector<NamedEntry> in_file_order(const SafetensorsHeader& header) {
  std::vector<NamedEntry> entries(header.tensors.begin(), header.tensors.end());
  std::sort(entries.begin(), entries.end(), [](const NamedEntry& a, const NamedEntry& b) {
    return std::pair(a.second.begin, a.second.end) < std::pair(b.second.begin, b.second.end);
  });
  return entries;
}
}  // namespace

std::vector<fs::path> list_checkpoints(FileSystem& files, const fs::path& directory) {
  std::vector<CheckpointName> names;
  if (files.exists(directory)) {
    for (const std::string& entry : files.list(directory)) {
      if (const auto name = CheckpointName::parse(entry)) names.push_back(*name);
    }
  }
  std::sort(names.rbegin(), names.rend());
  std::vector<fs::path> paths;
  for (const CheckpointName& name : names) paths.push_back(directory / name.to_string());
  return paths;
}

CheckpointInfo open_checkpoint(FileSystem& files, const fs::path& path) {
  const fs::path source = path / kManifestName;
  CheckpointManifest manifest = CheckpointManifest::from_text(read_text(files, source, kTextCapBytes), source);
  CheckpointInfo info{path, manifest.step, read_state(files, path, manifest), std::move(manifest.files)};
  info.parts.erase(kStateName);
  return info;
}

CheckpointInfo verify_checkpoint(FileSystem& files, const fs::path& path) {
  CheckpointInfo info = open_checkpoint(files, path);
  for (const auto& [name, record] : info.parts) verify_file(files, path / name, record);
  return info;
}

std::optional<CheckpointInfo> find_checkpoint(FileSystem& files, const fs::path& directory,
                                              const OnRejected& on_rejected) {
  std::vector<std::string> rejected;
  const auto reject = [&](const fs::path& path, const std::string& reason) {
    rejected.push_back(path.filename().string());
    on_rejected(path, reason);
  };
  for (const fs::path& path : list_checkpoints(files, directory)) {
    try {
      CheckpointInfo info = verify_checkpoint(files, path);
      if (CheckpointName::parse(path.filename().string())->step == info.step) return info;
      reject(path, fmt::format("{}: holds step {}", path.string(), info.step));
    } catch (const FormatVersionError&) {
      throw;
    } catch (const ReadError&) {
      throw;
    } catch (const Error& error) {
      reject(path, error.what());
    }
  }
  if (rejected.empty()) return std::nullopt;
  throw DataError("{}: no checkpoint is whole, all are damaged: {}; remove them to start anew", directory.string(),
                  fmt::join(rejected, ", "));
}

CheckpointPart read_part(FileSystem& files, const CheckpointInfo& checkpoint, const std::string& name) {
  const auto found = checkpoint.parts.find(name);
  if (found == checkpoint.parts.end()) {
    throw DataError("{}: the checkpoint has no part {}", checkpoint.path.string(), in_quotes(name));
  }
  const SafetensorsRecord& record = found->second;
  const std::unique_ptr<File> file = files.open(checkpoint.path / name, OpenMode::kRead);
  std::string start;
  SafetensorsHeader header = read_header(*file, record, start);
  std::uint32_t whole = crc32c(std::as_bytes(std::span(start)));
  CheckpointPart part{{}, std::move(header.metadata)};
  for (const auto& [tensor, entry] : in_file_order(header)) {
    const TensorLayout layout = layout_of(entry, tensor, file->path());
    Buffer buffer(Device::kCpu, layout.dtype, layout.shape);
    const std::span bytes(static_cast<std::byte*>(buffer.data()), buffer.bytes());
    file->read(header.data_start + entry.begin, bytes);
    const auto expected = record.tensors.find(tensor);
    if (expected == record.tensors.end() || crc32c(bytes) != expected->second.crc32c) {
      throw DataError("{}: tensor {} is not the one of the manifest", file->path().string(), in_quotes(tensor));
    }
    whole = crc32c(bytes, whole);
    part.tensors[tensor] = std::move(buffer);
  }
  if (whole != record.crc32c) throw DataError("{}: its header is not the one of the manifest", file->path().string());
  return part;
}

}  // namespace tadapt

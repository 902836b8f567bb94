// Reading and writing of single safetensors files.
#include "data/safetensors.h"

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>

#include "data/json.h"
#include "kernels/core/error.h"

namespace tadapt {
namespace {
namespace fs = std::filesystem;

SafetensorsHeader parse_mapped(const MappedFile& map) {
  const std::span<const std::byte> bytes = map.bytes();
  const std::uint64_t length = safetensors_header_bytes(bytes, bytes.size(), map.path());
  const auto* text = reinterpret_cast<const char*>(bytes.data() + kSafetensorsPrefixBytes);
  return parse_safetensors_header({text, length}, bytes.size(), map.path());
}

struct WriteItem {
  const std::string* name;
  Tensor tensor;
};

std::vector<WriteItem> file_order(const NamedTensors& tensors) {
  std::vector<WriteItem> items;
  for (const auto& [name, tensor] : tensors) {
    require_shape(tensor.device() == Device::kCpu, "tensor {} to be written is in {} memory", name,
                  tadapt::name(tensor.device()));
    require_shape(name != "__metadata__", "a tensor cannot be named {}", name);
    items.push_back({&name, tensor});
  }
  std::sort(items.begin(), items.end(), [](const WriteItem& a, const WriteItem& b) {
    const std::size_t a_size = bytes_per_element(a.tensor.dtype()), b_size = bytes_per_element(b.tensor.dtype());
    return a_size != b_size ? a_size > b_size : *a.name < *b.name;
  });
  return items;
}

/// Length prefix and padded header.
std::string header_text(const std::vector<WriteItem>& items, const std::map<std::string, std::string>& metadata) {
  nlohmann::json header = nlohmann::json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  std::uint64_t offset = 0;
  for (const WriteItem& item : items) {
    nlohmann::json shape = nlohmann::json::array();
    for (int i = 0; i < item.tensor.rank(); ++i) shape.push_back(item.tensor.size(i));
    const std::uint64_t end = offset + item.tensor.bytes();
    header[*item.name] = {
        {"dtype", safetensors_name(item.tensor.dtype())}, {"shape", shape}, {"data_offsets", {offset, end}}};
    offset = end;
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');
  std::string prefix;
  for (int i = 0; i < 8; ++i) prefix.push_back(static_cast<char>(text.size() >> (8 * i)));
  return prefix + text;
}
}  // namespace

SafetensorsFile::SafetensorsFile(const fs::path& path) : map_(path), header_(parse_mapped(map_)) {}

std::vector<std::string> SafetensorsFile::names() const {
  std::vector<std::string> names;
  for (const auto& [name, entry] : header_.tensors) names.push_back(name);
  return names;
}

Tensor SafetensorsFile::tensor(const std::string& name) const {
  const auto found = header_.tensors.find(name);
  if (found == header_.tensors.end()) {
    throw DataError("{}: no tensor {} among its {}", path().string(), in_quotes(name), header_.tensors.size());
  }
  const TensorEntry& entry = found->second;
  const TensorLayout layout = layout_of(entry, name, path());
  const std::byte* bytes = data().data() + entry.begin;
  if (reinterpret_cast<std::uintptr_t>(bytes) % bytes_per_element(layout.dtype) == 0) {
    return Tensor(const_cast<std::byte*>(bytes), layout.dtype, layout.shape);
  }
  const std::lock_guard lock(copies_mutex_);
  Buffer& copy = copies_[name];
  if (copy.data() == nullptr) {
    copy = Buffer(Device::kCpu, layout.dtype, layout.shape);
    std::memcpy(copy.data(), bytes, copy.bytes());
  }
  return copy.tensor();
}

SafetensorsRecord write_safetensors(FileSystem& files, const fs::path& path, const NamedTensors& tensors,
                                    const std::map<std::string, std::string>& metadata) {
  const std::vector<WriteItem> items = file_order(tensors);
  const std::string header = header_text(items, metadata);
  SafetensorsRecord record;
  record.bytes = header.size();
  for (const WriteItem& item : items) record.bytes += item.tensor.bytes();

  const std::unique_ptr<File> file = files.open(path, OpenMode::kCreate);
  file->preallocate(record.bytes);
  file->write(0, std::as_bytes(std::span(header)));
  record.crc32c = crc32c(std::as_bytes(std::span(header)));
  std::uint64_t offset = header.size();
  for (const WriteItem& item : items) {
    const std::span bytes(static_cast<const std::byte*>(item.tensor.data()), item.tensor.bytes());
    file->write(offset, bytes);
    record.crc32c = crc32c(bytes, record.crc32c);
    record.tensors[*item.name] = {offset, bytes.size(), crc32c(bytes)};
    offset += bytes.size();
  }
  file->sync();
  return record;
}

}  // namespace tadapt

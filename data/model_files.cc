// Model directories: single file, sharded index, fingerprint.
#include "data/model_files.h"

#include <xxhash.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <system_error>
#include <utility>

#include "data/json.h"
#include "kernels/core/error.h"

namespace tadapt {
namespace {
namespace fs = std::filesystem;
constexpr std::uint64_t kIndexCapBytes = 100'000'000;
constexpr std::uint64_t kConfigCapBytes = 10'000'000;

/// The shard's file name, refused unless it stays inside the directory.
std::string checked_shard(const nlohmann::json& value, const std::string& tensor, const fs::path& index) {
  if (!value.is_string()) {
    throw DataError("{}: weight_map: {} is not mapped to a file name", index.string(), in_quotes(tensor));
  }
  const auto text = value.get<std::string>();
  const fs::path shard(text);
  const bool climbs = std::find(shard.begin(), shard.end(), fs::path("..")) != shard.end();
  if (text.empty() || shard.is_absolute() || climbs || text.find('\0') != std::string::npos) {
    throw DataError("{}: weight_map: {} is mapped to {}, which is not inside the model directory", index.string(),
                    in_quotes(tensor), in_quotes(text));
  }
  return text;
}

class Hash128 {
 public:
  Hash128() : state_(XXH3_createState(), XXH3_freeState) { XXH3_128bits_reset(state_.get()); }
  void add(const void* data, std::size_t bytes) { XXH3_128bits_update(state_.get(), data, bytes); }
  void add(std::uint64_t number) { add(&number, sizeof number); }
  void add(const std::string& text) {
    add(text.size());
    add(text.data(), text.size());
  }
  std::string hex() const {
    const XXH128_hash_t hash = XXH3_128bits_digest(state_.get());
    return fmt::format("{:016x}{:016x}", hash.high64, hash.low64);
  }

 private:
  std::unique_ptr<XXH3_state_t, decltype(&XXH3_freeState)> state_;
};

void add_tensor(Hash128& hash, const std::string& name, const SafetensorsFile& file) {
  constexpr std::uint64_t kSampleBytes = 4096;
  const TensorEntry& entry = file.header().tensors.at(name);
  hash.add(name);
  hash.add(entry.dtype);
  hash.add(entry.shape.size());
  for (const std::int64_t size : entry.shape) hash.add(static_cast<std::uint64_t>(size));
  const std::uint64_t bytes = entry.end - entry.begin;
  const std::uint64_t sample = std::min(kSampleBytes, bytes);
  const std::byte* data = file.data().data() + entry.begin;
  hash.add(data, sample);
  hash.add(data + (bytes - sample), sample);
}
}  // namespace

ModelFiles::ModelFiles(fs::path directory) : directory_(std::move(directory)) {
  const fs::path single = directory_ / "model.safetensors";
  const fs::path index = directory_ / "model.safetensors.index.json";
  std::error_code unreadable;  // is as good as not there
  if (fs::exists(single, unreadable)) {
    const auto& file = files_["model.safetensors"] = std::make_unique<SafetensorsFile>(single);
    for (const std::string& name : file->names()) where_[name] = file.get();
  } else if (fs::exists(index, unreadable)) {
    open_shards(index);
  } else {
    throw MissingInputError("{}: {}", directory_.string(),
                            fs::is_directory(directory_, unreadable)
                                ? "neither model.safetensors nor model.safetensors.index.json is there"
                                : "no such model directory");
  }
}

void ModelFiles::open_shards(const fs::path& index) {
  RealFileSystem files;
  const nlohmann::json json = parse_json(read_text(files, index, kIndexCapBytes), index);
  if (!json.is_object() || !json.contains("weight_map") || !json["weight_map"].is_object()) {
    throw DataError("{}: no weight_map", index.string());
  }
  for (const auto& [name, value] : json["weight_map"].items()) {
    const std::string shard = checked_shard(value, name, index);
    std::unique_ptr<SafetensorsFile>& file = files_[shard];
    if (!file) file = std::make_unique<SafetensorsFile>(directory_ / shard);
    if (!file->contains(name)) {
      throw DataError("{}: weight_map: tensor {} is not in {}", index.string(), in_quotes(name), in_quotes(shard));
    }
    where_[name] = file.get();
  }
}

std::vector<std::string> ModelFiles::names() const {
  std::vector<std::string> names;
  for (const auto& [name, file] : where_) names.push_back(name);
  return names;
}

const SafetensorsFile& ModelFiles::file_of(const std::string& name) const {
  const auto found = where_.find(name);
  if (found == where_.end()) {
    throw DataError("{}: the model has no tensor {} (it has {})", directory_.string(), in_quotes(name), where_.size());
  }
  return *found->second;
}

Tensor ModelFiles::tensor(const std::string& name) const { return file_of(name).tensor(name); }

std::string model_fingerprint(const fs::path& directory) {
  RealFileSystem files;
  Hash128 hash;
  hash.add(read_text(files, directory / "config.json", kConfigCapBytes));
  const ModelFiles model(directory);
  for (const std::string& name : model.names()) add_tensor(hash, name, model.file_of(name));
  return hash.hex();
}

}  // namespace tadapt

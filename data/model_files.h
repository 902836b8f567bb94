// A model directory in Hugging Face layout: its tensors, whether in one file or in shards.
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "data/safetensors.h"
#include "kernels/core/tensor.h"

namespace tadapt {

/// Reads `model.safetensors`, or else the shards that `model.safetensors.index.json` lists. Files may be symbolic links
/// (the hub's cache keeps its snapshots so), but the index may only name files inside the directory.
class ModelFiles {
 public:
  /// MissingInputError naming what is not there; DataError naming what is wrong.
  explicit ModelFiles(std::filesystem::path directory);

  const std::filesystem::path& directory() const { return directory_; }
  std::vector<std::string> names() const;  ///< sorted
  bool contains(const std::string& name) const { return where_.contains(name); }
  /// As SafetensorsFile::tensor: read-only, valid while this object lives, callable from several threads.
  Tensor tensor(const std::string& name) const;
  /// The file that holds a tensor.
  const SafetensorsFile& file_of(const std::string& name) const;

 private:
  void open_shards(const std::filesystem::path& index);

  std::filesystem::path directory_;
  std::map<std::string, std::unique_ptr<SafetensorsFile>> files_;  // by name in the directory
  std::map<std::string, const SafetensorsFile*> where_;
};

/// 32 hexadecimal digits that tell models apart: XXH3-128 over config.json and, for every tensor in order of name, its
/// name, dtype, shape, first and last 4 KiB. Takes well under a second for 15 GB, and does not depend on how the
/// tensors are spread over files; a change that touches only the inside of a tensor is not seen.
std::string model_fingerprint(const std::filesystem::path& directory);

}  // namespace tadapt

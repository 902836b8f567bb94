// ExportWriter: the files of an export with their checksums, in a folder that appears whole or not at all.
#pragma once

#include <filesystem>
#include <string>

#include "data/checkpoint_manifest.h"
#include "data/safetensors.h"
#include "runtime/bundle/adapter_bundle.h"
#include "runtime/export/staged_directory.h"

namespace tadapt {

/// [D,F] of [F,D] float32, in memory of its own.
Buffer transposed(const Tensor& matrix);

class ExportWriter {
 public:
  /// WriteError when `out` is there and not empty.
  ExportWriter(FileSystem& files, const std::filesystem::path& out, std::int64_t step);

  /// A safetensors file; its bytes. `name` may have folders, which are made. `format`: the file's metadata of that
  /// name.
  std::uint64_t write_tensors(const std::string& name, const NamedTensors& tensors, const char* format);
  void write_text(const std::string& name, const std::string& text);
  /// adapters.json, CHECKSUMS, and the folder takes its place.
  void finish(const AdapterBundle& bundle, const char* format);

 private:
  std::filesystem::path place_of(const std::string& name);

  FileSystem& files_;
  StagedDirectory folder_;
  CheckpointManifest checksums_;
};

}  // namespace tadapt

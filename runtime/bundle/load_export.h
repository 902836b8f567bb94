// Exports: what their files are called, and reading adapters back from them.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "runtime/bundle/adapter_bundle.h"

namespace tadapt {

inline constexpr std::int64_t kExportFormatVersion = 2;
inline constexpr char kExportDescription[] = "adapters.json";  ///< which layers, trained for which models
inline constexpr char kExportChecksums[] = "CHECKSUMS";        ///< a CheckpointManifest of all files
/// The file of tensors when the adapters stand alone, and in the authors' layout.
inline constexpr char kAdaptersFile[] = "adapters.safetensors";
inline constexpr char kModelFile[] = "model.safetensors";

/// "model.layers.3.mlp.transcoder_": what the authors' tensor names of a layer begin with.
std::string authors_prefix(int layer);

/// Copies `from` into `to`, both of one type and shape; DataError naming file and tensor otherwise.
void copy_checked(const Tensor& from, const Tensor& to, const std::string& file, const std::string& name);
/// The shape of a transcoder by its encoder [F,D].
AdapterShape shape_of_encoder(const Tensor& encoder, const std::string& file);

/// Adapters of an export of either format; every tensor that is read is compared with its checksum.
AdapterBundle load_export(FileSystem& files, const std::filesystem::path& directory);

/// Whether config.json says that transcoders lie among the model's tensors.
bool is_authors_directory(FileSystem& files, const std::filesystem::path& directory);
/// Adapters of a directory that the authors' code has written. A layer whose transcoder is all zeros, encoder included,
/// was never trained and is left out.
AdapterBundle load_authors_directory(FileSystem& files, const std::filesystem::path& directory);

/// Reads every byte of an export of ours: everything that is wrong, as lines.
std::vector<std::string> verify_export(FileSystem& files, const std::filesystem::path& directory);

}  // namespace tadapt

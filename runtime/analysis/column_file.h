// Column files: named tables of numbers in one HDF5 file, with checksums of our own in a listing beside it.
#pragma once

#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>
#include <vector>

#include "data/file.h"
#include "kernels/core/tensor.h"

namespace tadapt {

/// A dataset: [rows] or [rows, columns] on the host.
struct Column {
  std::string name;
  Tensor values;
};

/// Writes them in this order. The listing: {file, bytes, columns: {name: {dtype, shape, chunk_rows, chunks: [[offset,
/// crc32c], …]}}}.
nlohmann::ordered_json write_columns(FileSystem& files, const std::filesystem::path& path,
                                     std::span<const Column> columns);

/// Reads them back without the HDF5 library, from where the listing says they are; every byte is compared with its
/// checksum. DataError naming file and dataset for what does not fit.
class ColumnFile {
 public:
  /// `listing` is what write_columns gave; the file lies in `directory`.
  ColumnFile(FileSystem& files, const std::filesystem::path& directory, const nlohmann::json& listing);

  bool has(const std::string& name) const { return datasets_.contains(name); }
  Shape shape(const std::string& name) const { return dataset(name).shape; }
  /// T is float, std::int8_t, std::int32_t or std::int64_t, as it was written.
  template <class T>
  std::vector<T> read(const std::string& name) const {
    std::vector<T> values(static_cast<std::size_t>(shape(name).elements()));
    read(name, Tensor::of(std::span(values), shape(name)));
    return values;
  }

 private:
  struct Chunk {
    std::uint64_t offset;
    std::uint32_t crc;
  };
  struct Dataset {
    DType dtype = DType::kInt8;
    Shape shape;
    std::int64_t chunk_rows = 1;
    std::vector<Chunk> chunks;
  };
  const Dataset& dataset(const std::string& name) const;
  void read(const std::string& name, const Tensor& values) const;

  std::filesystem::path path_;
  std::unique_ptr<File> file_;
  std::map<std::string, Dataset> datasets_;
};

}  // namespace tadapt

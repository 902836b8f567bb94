#include "runtime/analysis/column_file.h"

#include <algorithm>
#include <array>
#include <limits>

#include "data/hdf5.h"
#include "data/json_field.h"

namespace tadapt {
namespace {

using Json = nlohmann::ordered_json;

/// Of a chunk: HDF5 takes 4 GiB at most, and the last one is padded.
constexpr std::size_t kMostChunkBytes = std::size_t{64} << 20;
constexpr std::array kTypes{DType::kFloat32, DType::kInt8, DType::kInt32, DType::kInt64};

Hdf5Dataset layout(const Column& column) {
  Hdf5Dataset dataset{.name = column.name, .dtype = column.values.dtype(), .shape = column.values.shape()};
  const auto most = static_cast<std::int64_t>(kMostChunkBytes / std::max<std::size_t>(1, dataset.row_bytes()));
  dataset.chunk_rows = std::clamp<std::int64_t>(dataset.shape[0], 1, std::max<std::int64_t>(1, most));
  return dataset;
}

/// Appends the rows in chunks, the last one padded with zeros; their checksums.
std::vector<std::uint32_t> append(Hdf5Image& image, const Hdf5Dataset& dataset, const Tensor& values) {
  image.create(dataset);
  const auto bytes = std::span(static_cast<const std::byte*>(values.data()), values.bytes());
  std::vector<std::uint32_t> checksums;
  for (std::size_t begin = 0; begin < bytes.size(); begin += dataset.chunk_bytes()) {
    std::span<const std::byte> chunk = bytes.subspan(begin, std::min(dataset.chunk_bytes(), bytes.size() - begin));
    std::vector<std::byte> padded;
    if (chunk.size() < dataset.chunk_bytes()) {
      padded.assign(chunk.begin(), chunk.end());
      padded.resize(dataset.chunk_bytes());
      chunk = padded;
    }
    image.append_chunk(chunk);
    checksums.push_back(crc32c(chunk));
  }
  return checksums;
}

DType dtype_of(const JsonField& field) {
  const auto found = std::ranges::find_if(kTypes, [&](DType dtype) { return field.string() == name(dtype); });
  if (found == kTypes.end()) field.expected("float32, int8, int32 or int64");
  return *found;
}

}  // namespace

Json write_columns(FileSystem& files, const std::filesystem::path& path, std::span<const Column> columns) {
  Hdf5Image image(path.string());
  std::vector<Hdf5Dataset> layouts;
  std::vector<std::vector<std::uint32_t>> checksums;
  for (const Column& column : columns) {
    layouts.push_back(layout(column));
    checksums.push_back(append(image, layouts.back(), column.values));
  }
  const Hdf5Image::Finished finished = image.finish();
  const auto bytes = finished.bytes.span<std::int8_t>();
  write_atomically(files, path, {reinterpret_cast<const char*>(bytes.data()), bytes.size()});
  Json listing = {{"file", path.filename().string()}, {"bytes", bytes.size()}, {"columns", Json::object()}};
  for (std::size_t i = 0; i < columns.size(); ++i) {
    Json shape = Json::array(), chunks = Json::array();
    for (int d = 0; d < layouts[i].shape.rank(); ++d) shape.push_back(layouts[i].shape[d]);
    for (std::size_t chunk = 0; chunk < checksums[i].size(); ++chunk)
      chunks.push_back({finished.chunks[i][chunk].offset, checksums[i][chunk]});
    listing["columns"][columns[i].name] = {
        {"dtype", name(layouts[i].dtype)}, {"shape", shape}, {"chunk_rows", layouts[i].chunk_rows}, {"chunks", chunks}};
  }
  return listing;
}

ColumnFile::ColumnFile(FileSystem& files, const std::filesystem::path& directory, const nlohmann::json& listing) {
  constexpr std::int64_t kMost = std::int64_t{1} << 48;
  const JsonField root(listing, (directory / "features.json").string());
  const std::string& name = root["file"].string();
  if (name.find('/') != std::string::npos || name.starts_with('.')) root["file"].expected("a plain file name");
  path_ = directory / name;
  file_ = files.open(path_, OpenMode::kRead);
  const auto size = static_cast<std::uint64_t>(root["bytes"].integer(0, kMost));
  if (file_->size() != size) throw DataError("{}: {} bytes, {} were written", path_.string(), file_->size(), size);
  for (const auto& [key, value] : root["columns"].object()) {
    const JsonField column = root["columns"][key];
    const auto& sizes = column["shape"].array();
    if (sizes.empty() || sizes.size() > 2) column["shape"].expected("one or two sizes");
    const std::int64_t rows = column["shape"].at(0).integer(0, kMost);
    const std::int64_t width = sizes.size() == 2 ? column["shape"].at(1).integer(1, 1 << 30) : 1;
    Dataset dataset{.dtype = dtype_of(column["dtype"]),
                    .shape = sizes.size() == 2 ? Shape{rows, width} : Shape{rows},
                    .chunk_rows = column["chunk_rows"].integer(1, kMost),
                    .chunks = {}};
    const auto row_bytes = static_cast<std::uint64_t>(width) * bytes_per_element(dataset.dtype);
    const auto count = column["chunks"].array().size();
    if (static_cast<std::int64_t>(count) != (rows + dataset.chunk_rows - 1) / dataset.chunk_rows ||
        (count > 0 && static_cast<std::uint64_t>(dataset.chunk_rows) > size / row_bytes))
      column["chunks"].expected("a chunk for every chunk_rows rows, inside the file");
    for (std::size_t i = 0; i < count; ++i) {
      const JsonField chunk = column["chunks"].at(i);
      if (chunk.array().size() != 2) chunk.expected("offset and checksum");
      const auto last = static_cast<std::int64_t>(size - static_cast<std::uint64_t>(dataset.chunk_rows) * row_bytes);
      dataset.chunks.push_back(
          {static_cast<std::uint64_t>(chunk.at(0).integer(0, last)),
           static_cast<std::uint32_t>(chunk.at(1).integer(0, std::numeric_limits<std::uint32_t>::max()))});
    }
    datasets_.emplace(key, std::move(dataset));
  }
}

const ColumnFile::Dataset& ColumnFile::dataset(const std::string& name) const {
  const auto found = datasets_.find(name);
  if (found == datasets_.end()) throw DataError("{}: has no dataset {}", path_.string(), name);
  return found->second;
}

void ColumnFile::read(const std::string& name, const Tensor& values) const {
  const Dataset& from = dataset(name);
  if (from.dtype != values.dtype())
    throw DataError("{}: {} holds {}, expected {}", path_.string(), name, tadapt::name(from.dtype),
                    tadapt::name(values.dtype()));
  const std::size_t row_bytes = values.shape()[0] == 0 ? 0 : values.bytes() / static_cast<std::size_t>(values.size(0));
  std::vector<std::byte> chunk(from.chunks.empty() ? 0 : row_bytes * static_cast<std::size_t>(from.chunk_rows));
  const auto out = std::span(static_cast<std::byte*>(values.data()), values.bytes());
  std::size_t at = 0;
  for (const auto& [offset, crc] : from.chunks) {
    file_->read(offset, chunk);
    if (crc32c(chunk) != crc)
      throw DataError("{}: {}: the bytes at {} are not those that were written", path_.string(), name, offset);
    const std::size_t taken = std::min(chunk.size(), out.size() - at);
    std::copy_n(chunk.begin(), taken, out.begin() + static_cast<std::ptrdiff_t>(at));
    at += taken;
  }
}

}  // namespace tadapt

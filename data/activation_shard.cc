// ShardReader: chunks by address, their checksums, and their rows.
#include "data/activation_shard.h"

#include <algorithm>

#include "data/row_codec.h"
#include "data/stream_copy.h"
#include "kernels/core/error.h"

namespace tadapt {
namespace {
/// A piece is read, checksummed and copied out while it lies in the second-level cache.
constexpr std::size_t kPieceBytes = std::size_t{256} << 10;

std::span<std::byte> grown(Buffer& buffer, std::size_t count) {
  if (buffer.bytes() < count) buffer = Buffer(Device::kCpu, count);
  return {static_cast<std::byte*>(buffer.data()), count};
}

LayerColumn rows_of(RowKind kind) { return kind == RowKind::kInput ? LayerColumn::kInput : LayerColumn::kDelta; }

LayerColumn scales_of(RowKind kind) {
  return kind == RowKind::kInput ? LayerColumn::kInputScale : LayerColumn::kDeltaScale;
}
}  // namespace

std::span<std::byte> ReadScratch::bytes(std::size_t count) { return grown(bytes_, count); }
std::span<std::byte> ReadScratch::scale_bytes(std::size_t count) { return grown(scale_bytes_, count); }

DType delivered_dtype(const CacheFormat& format) {
  return format.row_dtype == DType::kInt8 ? DType::kFloat32 : format.row_dtype;
}

ShardReader::ShardReader(FileSystem& files, const std::filesystem::path& directory, const CacheFormat& format,
                         const CacheShard& shard)
    : format_(&format), shard_(&shard), file_(files.open(directory / shard_file_name(shard.index), OpenMode::kRead)) {}

std::string ShardReader::chunk_name(std::size_t dataset, std::int64_t chunk) const {
  const std::int64_t begin = chunk * layout(dataset).chunk_rows;
  const std::int64_t end = std::min(begin + layout(dataset).chunk_rows, shard_->rows);
  return fmt::format("{}: {} chunk {} (token rows {} to {})", file_->path().string(), layout(dataset).name, chunk,
                     shard_->first_row + begin, shard_->first_row + end - 1);
}

void ShardReader::check(std::size_t dataset, std::int64_t chunk, std::uint32_t crc) const {
  const std::uint32_t expected = shard_->datasets[dataset].chunks[static_cast<std::size_t>(chunk)].crc32c;
  if (crc == expected) return;
  throw DataError("{}: damaged: CRC32C is {:08x}, {:08x} was written", chunk_name(dataset, chunk), crc, expected);
}

void ShardReader::read_chunk(std::size_t dataset, std::int64_t chunk, std::span<std::byte> out) const {
  require_shape(out.size() == layout(dataset).chunk_bytes(), "{}: {} bytes asked for", chunk_name(dataset, chunk),
                out.size());
  file_->read(shard_->datasets[dataset].chunks.at(static_cast<std::size_t>(chunk)).offset, out);
  check(dataset, chunk, crc32c(out));
}

void ShardReader::read_all_chunks(std::size_t dataset, std::span<std::byte> out) const {
  const std::size_t bytes = layout(dataset).chunk_bytes();
  for (std::size_t i = 0; i < dataset_chunks(dataset); ++i) {
    read_chunk(dataset, static_cast<std::int64_t>(i), out.subspan(i * bytes, bytes));
  }
}

std::span<const float> ShardReader::scales(std::size_t layer_index, RowKind kind, std::int64_t chunk,
                                           ReadScratch& scratch) const {
  if (format_->row_dtype != DType::kInt8) return {};
  const std::size_t dataset = dataset_index(*format_, layer_index, scales_of(kind));
  const std::span<std::byte> bytes = scratch.scale_bytes(layout(dataset).chunk_bytes());
  read_chunk(dataset, chunk, bytes);
  return {reinterpret_cast<const float*>(bytes.data()), bytes.size() / sizeof(float)};
}

namespace {
/// One stored row to where it is wanted; `scales` (of the chunk) is empty unless rows are int8.
void deliver(std::span<const std::byte> row, std::span<const float> scales, std::int64_t row_in_chunk, std::byte* to) {
  if (scales.empty()) {
    stream_copy(to, row.data(), row.size());
  } else {
    decode_int8_row({reinterpret_cast<const std::int8_t*>(row.data()), row.size()},
                    scales[static_cast<std::size_t>(row_in_chunk)], reinterpret_cast<float*>(to));
  }
}
}  // namespace

void ShardReader::gather_chunk(std::size_t layer_index, RowKind kind, std::int64_t chunk,
                               std::span<const WantedRow> wanted, ReadScratch& scratch,
                               std::span<RowChecksum> row_checksums) const {
  const std::size_t dataset = dataset_index(*format_, layer_index, rows_of(kind));
  const std::span<const float> row_scales = scales(layer_index, kind, chunk, scratch);
  const std::uint64_t offset = shard_->datasets[dataset].chunks.at(static_cast<std::size_t>(chunk)).offset;
  const std::size_t row_bytes = layout(dataset).row_bytes();
  const std::int64_t chunk_rows = layout(dataset).chunk_rows;
  const auto piece_rows = std::max<std::int64_t>(1, static_cast<std::int64_t>(kPieceBytes / row_bytes));
  std::uint32_t crc = 0;
  auto next = wanted.begin();
  for (std::int64_t begin = 0; begin < chunk_rows; begin += piece_rows) {
    const std::int64_t end = std::min(begin + piece_rows, chunk_rows);
    const auto piece = scratch.bytes(static_cast<std::size_t>(end - begin) * row_bytes);
    file_->read(offset + static_cast<std::uint64_t>(begin) * row_bytes, piece);
    crc = crc32c(piece, crc);
    for (auto row = begin; row < std::min(end, static_cast<std::int64_t>(row_checksums.size())); ++row) {
      const auto bytes = piece.subspan(static_cast<std::size_t>(row - begin) * row_bytes, row_bytes);
      row_checksums[static_cast<std::size_t>(row)].store(crc32c(bytes), std::memory_order_relaxed);
    }
    for (; next != wanted.end() && next->row - chunk * chunk_rows < end; ++next) {
      const std::int64_t row = next->row - chunk * chunk_rows;
      deliver(piece.subspan(static_cast<std::size_t>(row - begin) * row_bytes, row_bytes), row_scales, row, next->to);
    }
  }
  stream_copies_done();
  check(dataset, chunk, crc);
}

void ShardReader::gather_rows(std::size_t layer_index, RowKind kind, std::int64_t chunk,
                              std::span<const WantedRow> wanted, ReadScratch& scratch,
                              std::span<const RowChecksum> row_checksums) const {
  const std::size_t dataset = dataset_index(*format_, layer_index, rows_of(kind));
  const std::span<const float> row_scales = scales(layer_index, kind, chunk, scratch);
  const std::uint64_t offset = shard_->datasets[dataset].chunks.at(static_cast<std::size_t>(chunk)).offset;
  const std::size_t row_bytes = layout(dataset).row_bytes();
  const auto bytes = scratch.bytes(row_bytes);
  for (const WantedRow& want : wanted) {
    const std::int64_t row = want.row - chunk * layout(dataset).chunk_rows;
    file_->read(offset + static_cast<std::uint64_t>(row) * row_bytes, bytes);
    if (crc32c(bytes) != row_checksums[static_cast<std::size_t>(row)].load(std::memory_order_relaxed)) {
      throw DataError("{}: damaged: its row {} is not the one of an earlier reading", chunk_name(dataset, chunk), row);
    }
    deliver(bytes, row_scales, row, want.to);
  }
  stream_copies_done();
}

}  // namespace tadapt

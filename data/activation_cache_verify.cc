// verify_cache: one pass over every file in the order of its bytes.
#include "data/activation_cache_verify.h"

#include <algorithm>
#include <cmath>

#include "kernels/core/bfloat16.h"
#include "kernels/core/error.h"

namespace tadapt {
namespace {

/// The one pass over one shard.
class ShardCheck {
 public:
  ShardCheck(const ActivationCacheReader& cache, std::size_t index, std::vector<std::string>& problems)
      : format_(cache.manifest().format), reader_(cache.shard(index)), problems_(problems) {}

  /// `check_file`: also the checksum of the whole file; off when its size is wrong already.
  void run(const std::string& file_problem) {
    const std::size_t problems_before = problems_.size();
    for (const Extent& extent : extents_in_file_order()) {
      read_gap(extent.offset);
      check_chunk(extent);
    }
    read_gap(shard().bytes);
    if (!file_problem.empty() || problems_.size() != problems_before) return;
    if (file_crc_ != shard().crc32c) {
      problems_.push_back(fmt::format("{}: damaged beside its chunks: CRC32C is {:08x}, {:08x} was written",
                                      reader_->file().path().string(), file_crc_, shard().crc32c));
    }
    check_tokens();
  }

 private:
  struct Extent {
    std::uint64_t offset = 0;
    std::size_t dataset = 0;
    std::int64_t chunk = 0;
  };

  const CacheShard& shard() const { return reader_->shard(); }

  std::vector<Extent> extents_in_file_order() const {
    std::vector<Extent> extents;
    for (std::size_t d = 0; d < shard().datasets.size(); ++d) {
      const std::vector<CacheChunk>& chunks = shard().datasets[d].chunks;
      for (std::size_t c = 0; c < chunks.size(); ++c) {
        extents.push_back({chunks[c].offset, d, static_cast<std::int64_t>(c)});
      }
    }
    std::sort(extents.begin(), extents.end(), [](const Extent& a, const Extent& b) { return a.offset < b.offset; });
    return extents;
  }

  /// Takes the bytes from the last chunk's end to `end` (HDF5's own) into the file's checksum.
  void read_gap(std::uint64_t end) {
    constexpr std::uint64_t kPieceBytes = std::uint64_t{1} << 20;
    if (!file_readable_) return;
    try {
      while (position_ < end) {
        const auto piece = scratch_.bytes(std::min(kPieceBytes, end - position_));
        reader_->file().read(position_, piece);
        file_crc_ = crc32c(piece, file_crc_);
        position_ += piece.size();
      }
    } catch (const DataError&) {  // past the end of a truncated file, which has its own line
      file_readable_ = false;
    }
  }

  void check_chunk(const Extent& extent) {
    const Hdf5Dataset& layout = shard().datasets[extent.dataset].layout;
    const auto bytes = scratch_.bytes(layout.chunk_bytes());
    try {
      reader_->read_chunk(extent.dataset, extent.chunk, bytes);
    } catch (const DataError& error) {
      problems_.push_back(error.what());
      file_readable_ = false;
      return;
    }
    file_crc_ = crc32c(bytes, file_crc_);
    position_ = extent.offset + bytes.size();
    check_finite(extent, layout, bytes);
  }

  void check_finite(const Extent& extent, const Hdf5Dataset& layout, std::span<const std::byte> bytes) {
    const auto rows = std::min(layout.chunk_rows, shard().rows - extent.chunk * layout.chunk_rows);
    std::int64_t bad_rows = 0, first_bad = 0;
    for (std::int64_t row = rows - 1; row >= 0; --row) {
      const auto begin = static_cast<std::size_t>(row) * layout.row_bytes();
      if (finite(layout.dtype, bytes.subspan(begin, layout.row_bytes()))) continue;
      ++bad_rows;
      first_bad = row;
    }
    if (bad_rows == 0) return;
    problems_.push_back(fmt::format("{}: {} rows hold numbers that are not finite, the first is token row {}",
                                    reader_->chunk_name(extent.dataset, extent.chunk), bad_rows,
                                    shard().first_row + extent.chunk * layout.chunk_rows + first_bad));
  }

  template <class T>
  static bool all_finite(std::span<const std::byte> bytes) {
    const std::span values(reinterpret_cast<const T*>(bytes.data()), bytes.size() / sizeof(T));
    return std::all_of(values.begin(), values.end(), [](T x) {
      if constexpr (std::is_same_v<T, bfloat16>) {
        return std::isfinite(static_cast<float>(x));
      } else {
        return std::isfinite(x);
      }
    });
  }

  static bool finite(DType dtype, std::span<const std::byte> bytes) {
    if (dtype == DType::kBFloat16) return all_finite<bfloat16>(bytes);
    if (dtype == DType::kFloat32) return all_finite<float>(bytes);
    return dtype != DType::kFloat64 || all_finite<double>(bytes);
  }

  /// Ids not negative; sequences of this shard, as listed; order by sequence, then position.
  void check_tokens() {
    const auto ids = reader_->column<std::int32_t>(dataset_index(format_, TokenColumn::kId));
    const auto sequences = reader_->column<std::int64_t>(dataset_index(format_, TokenColumn::kSequence));
    const auto positions = reader_->column<std::int32_t>(dataset_index(format_, TokenColumn::kPosition));
    for (std::size_t i = 0; i < ids.size(); ++i) {
      const bool ordered = i == 0 ? sequences[i] == shard().first_sequence
                                  : sequences[i] > sequences[i - 1] ||
                                        (sequences[i] == sequences[i - 1] && positions[i] > positions[i - 1]);
      if (ids[i] >= 0 && positions[i] >= 0 && ordered && sequences[i] <= shard().last_sequence) continue;
      problems_.push_back(fmt::format("{}: tokens: token row {} (id {}, sequence {}, position {}) does not belong here",
                                      reader_->file().path().string(), shard().first_row + static_cast<std::int64_t>(i),
                                      ids[i], sequences[i], positions[i]));
      return;
    }
  }

  const CacheFormat& format_;
  std::shared_ptr<const ShardReader> reader_;
  std::vector<std::string>& problems_;
  ReadScratch scratch_;
  std::uint64_t position_ = 0;
  std::uint32_t file_crc_ = 0;
  bool file_readable_ = true;
};
}  // namespace

std::vector<std::string> verify_shard(const ActivationCacheReader& cache, std::size_t index) {
  std::vector<std::string> problems;
  const std::string file_problem = cache.shard_file_problem(index);
  if (!file_problem.empty()) problems.push_back(file_problem);
  try {
    ShardCheck(cache, index, problems).run(file_problem);
  } catch (const MissingInputError& error) {
    if (file_problem.empty()) problems.push_back(error.what());
  }
  return problems;
}

std::vector<std::string> verify_cache(const ActivationCacheReader& cache) {
  std::vector<std::string> problems;
  for (std::size_t i = 0; i < cache.manifest().shards.size(); ++i)
    for (std::string& problem : verify_shard(cache, i)) problems.push_back(std::move(problem));
  return problems;
}

}  // namespace tadapt

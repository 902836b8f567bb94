// HDF5 files built in memory, as bytes that are the same whenever and wherever they are built.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "kernels/core/context.h"
#include "kernels/core/tensor.h"

namespace tadapt {

/// Where one chunk of a dataset lies in the file.
struct Hdf5Chunk {
  std::uint64_t offset = 0;
  std::uint64_t bytes = 0;
};

/// A dataset of one or two dimensions, cut into chunks of whole rows.
struct Hdf5Dataset {
  std::string name;  ///< path inside the file; its groups are made as needed
  DType dtype = DType::kFloat32;
  Shape shape;                  ///< [rows] or [rows, columns]
  std::int64_t chunk_rows = 1;  ///< at most the rows; no chunks at all when there are no rows

  std::int64_t chunk_count() const;  ///< ceil(rows / chunk_rows)
  std::size_t row_bytes() const;
  /// Every chunk is stored whole: rows past the end of the last one are padding.
  std::size_t chunk_bytes() const { return row_bytes() * static_cast<std::size_t>(chunk_rows); }
};

/// One HDF5 file under construction. It lives in memory (core driver, no backing store), is written with the library's
/// default format bounds and without time stamps, and never aggregates small allocations: equal calls give equal
/// bytes, and bytes beside the chunks depend on names, types and chunk counts only, not on chunk sizes.
///
/// bfloat16 is a true 16-bit floating-point type (sign 15, exponent 7..14 with bias 127, mantissa 0..6), which readers
/// without such a type convert to float32 exactly.
///
/// The HDF5 library is not thread-safe: its state is global to the process. Each call here takes one process-wide
/// lock, so several images may be built by several threads (one thread per image). Failures are WriteErrors that name
/// the image, the dataset and the library's own reason.
class Hdf5Image {
 public:
  /// `label` stands in error messages: the path this file will have.
  explicit Hdf5Image(std::string label);
  Hdf5Image(const Hdf5Image&) = delete;
  Hdf5Image& operator=(const Hdf5Image&) = delete;
  ~Hdf5Image();

  /// Starts a dataset; the chunks that follow are its.
  void create(const Hdf5Dataset& dataset);
  /// Appends the next chunk of the dataset created last: exactly chunk_bytes(), padding included.
  void append_chunk(std::span<const std::byte> chunk);

  struct Finished {
    Buffer bytes;                                ///< the whole file
    std::vector<std::vector<Hdf5Chunk>> chunks;  ///< per dataset in order of creation, chunks in order of rows
  };
  /// Closes the dataset and hands out the file; the image is empty afterwards.
  Finished finish();

 private:
  void close_dataset();

  std::string label_;
  std::int64_t file_ = -1;     // hid_t of HDF5
  std::int64_t dataset_ = -1;  // hid_t of HDF5
  Hdf5Dataset current_;
  std::int64_t appended_ = 0;
  std::vector<std::vector<Hdf5Chunk>> chunks_;
};

}  // namespace tadapt

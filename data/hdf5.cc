// Hdf5Image over the HDF5 C library: the only file that sees it.
#include "data/hdf5.h"

#include <hdf5.h>

#include <array>
#include <mutex>
#include <utility>

#include "kernels/core/error.h"

namespace tadapt {
namespace {

/// The library's state is global, so is the lock that guards it.
std::mutex& library_mutex() {
  static std::mutex mutex;
  return mutex;
}

/// Holds the library for one call, its own printing of errors switched off.
class LibraryLock {
 public:
  LibraryLock() : lock_(library_mutex()) { H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr); }

 private:
  std::lock_guard<std::mutex> lock_;
};

/// The innermost reason on HDF5's error stack.
std::string library_reason() {
  std::string reason;
  const auto take_first = [](unsigned, const H5E_error2_t* error, void* out) -> herr_t {
    auto& text = *static_cast<std::string*>(out);
    if (text.empty() && error->desc != nullptr) text = fmt::format("{} ({})", error->desc, error->func_name);
    return 0;
  };
  H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, take_first, &reason);
  H5Eclear2(H5E_DEFAULT);
  return reason.empty() ? "no reason given" : reason;
}

/// `result` of a library call, or a WriteError when it is negative.
template <class Result>
Result checked(Result result, const char* call, const std::string& what) {
  if (result < 0) throw WriteError("{}: {} failed: {}", what, call, library_reason());
  return result;
}

/// An identifier of HDF5 with its closing function.
class Handle {
 public:
  Handle(hid_t id, herr_t (*close)(hid_t)) : id_(id), close_(close) {}
  Handle(Handle&& other) noexcept : id_(std::exchange(other.id_, -1)), close_(other.close_) {}
  Handle& operator=(Handle&&) = delete;
  ~Handle() {
    if (id_ >= 0) close_(id_);
  }
  hid_t id() const { return id_; }
  hid_t release() { return std::exchange(id_, -1); }

 private:
  hid_t id_;
  herr_t (*close_)(hid_t);
};

Handle bfloat16_type(const std::string& what) {
  Handle type(checked(H5Tcopy(H5T_IEEE_F32LE), "H5Tcopy", what), H5Tclose);
  // In this order: fields first while there are 32 bits, then fewer bits, then fewer bytes.
  checked(H5Tset_fields(type.id(), 15, 7, 8, 0, 7), "H5Tset_fields", what);
  checked(H5Tset_precision(type.id(), 16), "H5Tset_precision", what);
  checked(H5Tset_size(type.id(), 2), "H5Tset_size", what);
  checked(H5Tset_ebias(type.id(), 127), "H5Tset_ebias", what);
  return type;
}

Handle file_type(DType dtype, const std::string& what) {
  const auto copy = [&](hid_t type) { return Handle(checked(H5Tcopy(type), "H5Tcopy", what), H5Tclose); };
  switch (dtype) {
    case DType::kBFloat16:
      return bfloat16_type(what);
    case DType::kFloat32:
      return copy(H5T_IEEE_F32LE);
    case DType::kFloat64:
      return copy(H5T_IEEE_F64LE);
    case DType::kInt8:
      return copy(H5T_STD_I8LE);
    case DType::kInt32:
      return copy(H5T_STD_I32LE);
    case DType::kInt64:
      return copy(H5T_STD_I64LE);
    case DType::kFloat16:
      break;
  }
  throw WriteError("{}: no HDF5 type for {}", what, name(dtype));
}

/// Chunked by rows, no fill values (every chunk is written whole), no time stamps. Nothing to chunk: contiguous.
Handle creation_properties(const Hdf5Dataset& dataset, const std::string& what) {
  Handle properties(checked(H5Pcreate(H5P_DATASET_CREATE), "H5Pcreate", what), H5Pclose);
  checked(H5Pset_obj_track_times(properties.id(), false), "H5Pset_obj_track_times", what);
  if (dataset.shape[0] == 0) return properties;
  const std::array<hsize_t, 2> chunk{static_cast<hsize_t>(dataset.chunk_rows), static_cast<hsize_t>(dataset.shape[1])};
  checked(H5Pset_chunk(properties.id(), dataset.shape.rank(), chunk.data()), "H5Pset_chunk", what);
  checked(H5Pset_fill_time(properties.id(), H5D_FILL_TIME_NEVER), "H5Pset_fill_time", what);
  return properties;
}

/// `unique` keeps two images of one label apart: the library refuses to open one name twice, even in memory.
Handle memory_file(const std::string& label, const std::string& unique) {
  constexpr std::size_t kGrowthBytes = std::size_t{16} << 20;
  const Handle access(checked(H5Pcreate(H5P_FILE_ACCESS), "H5Pcreate", label), H5Pclose);
  checked(H5Pset_fapl_core(access.id(), kGrowthBytes, false), "H5Pset_fapl_core", label);
  checked(H5Pset_meta_block_size(access.id(), 0), "H5Pset_meta_block_size", label);
  checked(H5Pset_small_data_block_size(access.id(), 0), "H5Pset_small_data_block_size", label);
  return Handle(checked(H5Fcreate(unique.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, access.id()), "H5Fcreate", label),
                H5Fclose);
}

/// Address and size of every chunk.
std::vector<Hdf5Chunk> locate_chunks(hid_t id, const Hdf5Dataset& dataset, const std::string& what) {
  std::vector<Hdf5Chunk> chunks(static_cast<std::size_t>(dataset.chunk_count()));
  hsize_t row = 0;
  for (Hdf5Chunk& chunk : chunks) {
    const std::array<hsize_t, 2> corner{row, 0};
    unsigned filters = 0;
    haddr_t address = HADDR_UNDEF;
    hsize_t bytes = 0;
    checked(H5Dget_chunk_info_by_coord(id, corner.data(), &filters, &address, &bytes), "H5Dget_chunk_info_by_coord",
            what);
    if (address == HADDR_UNDEF || bytes != dataset.chunk_bytes()) {
      throw WriteError("{}: the chunk at row {} was stored in {} bytes, not {}", what, row, bytes,
                       dataset.chunk_bytes());
    }
    chunk = {address, bytes};
    row += static_cast<hsize_t>(dataset.chunk_rows);
  }
  return chunks;
}
}  // namespace

std::int64_t Hdf5Dataset::chunk_count() const { return (shape[0] + chunk_rows - 1) / chunk_rows; }

std::size_t Hdf5Dataset::row_bytes() const {
  return bytes_per_element(dtype) * static_cast<std::size_t>(shape.rank() == 2 ? shape[1] : 1);
}

Hdf5Image::Hdf5Image(std::string label) : label_(std::move(label)) {
  const LibraryLock lock;
  file_ = memory_file(label_, fmt::format("{}", fmt::ptr(this))).release();
}

Hdf5Image::~Hdf5Image() {
  const LibraryLock lock;
  if (dataset_ >= 0) H5Dclose(dataset_);
  if (file_ >= 0) H5Fclose(file_);
}

void Hdf5Image::create(const Hdf5Dataset& dataset) {
  const std::string what = fmt::format("{}: {}", label_, dataset.name);
  const std::int64_t rows = dataset.shape[0];
  require_shape(dataset.shape.rank() == 1 || dataset.shape.rank() == 2, "{}: shape {}", what,
                dataset.shape.to_string());
  require_shape(dataset.chunk_rows >= 1 && (rows == 0 || dataset.chunk_rows <= rows), "{}: chunks of {} rows for {}",
                what, dataset.chunk_rows, dataset.shape.to_string());
  close_dataset();
  const LibraryLock lock;
  const std::array<hsize_t, 2> sizes{static_cast<hsize_t>(rows), static_cast<hsize_t>(dataset.shape[1])};
  const Handle space(checked(H5Screate_simple(dataset.shape.rank(), sizes.data(), nullptr), "H5Screate_simple", what),
                     H5Sclose);
  const Handle type = file_type(dataset.dtype, what);
  const Handle properties = creation_properties(dataset, what);
  const Handle links(checked(H5Pcreate(H5P_LINK_CREATE), "H5Pcreate", what), H5Pclose);
  checked(H5Pset_create_intermediate_group(links.id(), 1), "H5Pset_create_intermediate_group", what);
  dataset_ =
      checked(H5Dcreate2(file_, dataset.name.c_str(), type.id(), space.id(), links.id(), properties.id(), H5P_DEFAULT),
              "H5Dcreate2", what);
  current_ = dataset;
  appended_ = 0;
}

void Hdf5Image::append_chunk(std::span<const std::byte> chunk) {
  require_shape(dataset_ >= 0 && appended_ < current_.chunk_count() && chunk.size() == current_.chunk_bytes(),
                "{}: {}: chunk {} of {} bytes, where {} chunks of {} bytes are due", label_, current_.name, appended_,
                chunk.size(), dataset_ >= 0 ? current_.chunk_count() : 0, current_.chunk_bytes());
  const LibraryLock lock;
  const std::array<hsize_t, 2> corner{static_cast<hsize_t>(appended_ * current_.chunk_rows), 0};
  checked(H5Dwrite_chunk(dataset_, H5P_DEFAULT, 0, corner.data(), chunk.size(), chunk.data()), "H5Dwrite_chunk",
          fmt::format("{}: {}: chunk {}", label_, current_.name, appended_));
  ++appended_;
}

void Hdf5Image::close_dataset() {
  if (dataset_ < 0) return;
  require_shape(appended_ == current_.chunk_count(), "{}: {}: {} of {} chunks were written", label_, current_.name,
                appended_, current_.chunk_count());
  const LibraryLock lock;
  const std::string what = fmt::format("{}: {}", label_, current_.name);
  chunks_.push_back(locate_chunks(dataset_, current_, what));
  checked(H5Dclose(std::exchange(dataset_, -1)), "H5Dclose", what);
}

Hdf5Image::Finished Hdf5Image::finish() {
  close_dataset();
  require_shape(file_ >= 0, "{}: finished twice", label_);
  const LibraryLock lock;
  checked(H5Fflush(file_, H5F_SCOPE_LOCAL), "H5Fflush", label_);
  const auto bytes =
      static_cast<std::size_t>(checked(H5Fget_file_image(file_, nullptr, 0), "H5Fget_file_image", label_));
  Finished finished{Buffer(Device::kCpu, bytes), std::exchange(chunks_, {})};
  checked(H5Fget_file_image(file_, finished.bytes.data(), bytes), "H5Fget_file_image", label_);
  checked(H5Fclose(std::exchange(file_, -1)), "H5Fclose", label_);
  return finished;
}

}  // namespace tadapt

// The header of a safetensors file: every claim in it is checked before anything is read through it.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/core/tensor.h"

namespace tadapt {

/// Bytes before the header: its length as a little-endian 64-bit number.
inline constexpr std::uint64_t kSafetensorsPrefixBytes = 8;
inline constexpr std::uint64_t kSafetensorsHeaderCapBytes = 100'000'000;

/// One tensor as the header describes it.
struct TensorEntry {
  std::string dtype;  ///< as the format spells it: "F32", "BF16", …
  std::vector<std::int64_t> shape;
  std::uint64_t begin = 0;  ///< first byte, counted from the start of the data
  std::uint64_t end = 0;    ///< one past the last
};

struct SafetensorsHeader {
  std::map<std::string, TensorEntry> tensors;
  std::map<std::string, std::string> metadata;
  std::uint64_t data_start = 0;  ///< where in the file the data begins
};

/// Length of the header from the file's first bytes (fewer than 8 are refused). DataError when it exceeds the cap or
/// the file.
std::uint64_t safetensors_header_bytes(std::span<const std::byte> prefix, std::uint64_t file_bytes,
                                       const std::filesystem::path& source);

/// Parses the header that follows the prefix of a file of `file_bytes`. DataError naming source and tensor unless
/// names are unique, dtypes are the format's, every shape fills its byte range exactly, and the ranges tile the data:
/// no overlap, no hole, nothing after the last.
SafetensorsHeader parse_safetensors_header(std::string_view header, std::uint64_t file_bytes,
                                           const std::filesystem::path& source);

/// Type and shape of a tensor in our terms. DataError when the format knows the type but we do not read it, or when it
/// has more dimensions than Shape holds.
struct TensorLayout {
  DType dtype = DType::kFloat32;
  Shape shape;
};
TensorLayout layout_of(const TensorEntry& entry, const std::string& name, const std::filesystem::path& source);

/// The format's name of a type: "F32".
const char* safetensors_name(DType dtype);

}  // namespace tadapt

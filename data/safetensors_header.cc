// Parsing of safetensors headers as a stream of JSON events, so that a hostile one is refused at its first odd byte.
#include "data/safetensors_header.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "data/json.h"
#include "kernels/core/error.h"

namespace tadapt {
namespace {
namespace fs = std::filesystem;

struct FormatType {
  std::string_view name;
  std::uint64_t bits;
  std::optional<DType> ours;
};
constexpr FormatType kTypes[] = {
    {"F32", 32, DType::kFloat32},
    {"BF16", 16, DType::kBFloat16},
    {"F16", 16, DType::kFloat16},
    {"F64", 64, DType::kFloat64},
    {"I8", 8, DType::kInt8},
    {"I32", 32, DType::kInt32},
    {"I64", 64, DType::kInt64},
    {"BOOL", 8, {}},
    {"U8", 8, {}},
    {"I16", 16, {}},
    {"U16", 16, {}},
    {"U32", 32, {}},
    {"U64", 64, {}},
    {"F8_E5M2", 8, {}},
    {"F8_E4M3", 8, {}},
    {"F8_E8M0", 8, {}},
    {"F6_E2M3", 6, {}},
    {"F6_E3M2", 6, {}},
    {"F4", 4, {}},
    {"C64", 64, {}},
};

const FormatType* find_type(std::string_view name) {
  const auto* found = std::find_if(std::begin(kTypes), std::end(kTypes), [&](const auto& t) { return t.name == name; });
  return found == std::end(kTypes) ? nullptr : found;
}

/// Takes nlohmann's parse events and allows exactly the format's structure.
class HeaderEvents {
 public:
  HeaderEvents(SafetensorsHeader& header, const fs::path& source) : header_(header), source_(source) {}

  bool key(std::string& text) {
    if (level_ == 1) {
      begin_entry(text);
    } else if (in_metadata()) {
      if (!header_.metadata.emplace(text, "").second) refuse("__metadata__ key {} twice", in_quotes(text));
      field_ = text;
    } else {
      if (text != "dtype" && text != "shape" && text != "data_offsets") {
        refuse("tensor {}: unknown field {}", in_quotes(name_), in_quotes(text));
      }
      if (!seen_.emplace(text, true).second) refuse("tensor {}: {} twice", in_quotes(name_), text);
      field_ = text;
    }
    return true;
  }

  bool string(std::string& text) {
    if (level_ == 2 && in_metadata()) {
      header_.metadata[field_] = text;
    } else if (level_ == 2 && field_ == "dtype") {
      entry_.dtype = text;
    } else {
      refuse_value("a string");
    }
    return true;
  }

  bool number_unsigned(std::uint64_t value) {
    constexpr std::size_t kMostNumbers = 64;
    if (level_ != 3) refuse_value("a number");
    if (numbers_.size() == kMostNumbers)
      refuse("tensor {}: more than {} numbers in {}", in_quotes(name_), kMostNumbers, field_);
    numbers_.push_back(value);
    return true;
  }

  bool start_object(std::size_t) {
    if (level_ >= 2) refuse_value("an object");
    ++level_;
    return true;
  }

  bool end_object() {
    if (--level_ == 1 && !in_metadata()) {
      for (const char* field : {"dtype", "shape", "data_offsets"}) {
        if (!seen_.contains(field)) refuse("tensor {}: no {}", in_quotes(name_), field);
      }
      header_.tensors[name_] = std::move(entry_);
    }
    return true;
  }

  bool start_array(std::size_t) {
    if (level_ != 2 || in_metadata() || field_ == "dtype") refuse_value("an array");
    numbers_.clear();
    ++level_;
    return true;
  }

  bool end_array() {
    --level_;
    if (field_ == "shape") {
      for (const std::uint64_t size : numbers_) {
        if (size > INT64_MAX) refuse("tensor {}: size {} is too large", in_quotes(name_), size);
        entry_.shape.push_back(static_cast<std::int64_t>(size));
      }
    } else {
      if (numbers_.size() != 2) {
        refuse("tensor {}: data_offsets has {} numbers instead of 2", in_quotes(name_), numbers_.size());
      }
      entry_.begin = numbers_[0];
      entry_.end = numbers_[1];
    }
    return true;
  }

  bool number_integer(std::int64_t value) { return refuse_value(fmt::format("a negative number ({})", value)); }
  bool number_float(double, const std::string&) { return refuse_value("a fraction or a number beyond 64 bits"); }
  bool null() { return refuse_value("null"); }
  bool boolean(bool) { return refuse_value("a truth value"); }
  bool binary(std::vector<std::uint8_t>&) { return refuse_value("binary data"); }
  bool parse_error(std::size_t byte, const std::string&, const nlohmann::json::exception&) {
    throw DataError("{}: header: not valid JSON at byte {}", source_.string(), byte);
  }

 private:
  template <class... Args>
  [[noreturn]] void refuse(fmt::format_string<Args...> format, Args&&... args) const {
    throw DataError("{}: header: {}", source_.string(), fmt::format(format, std::forward<Args>(args)...));
  }
  [[noreturn]] bool refuse_value(const std::string& what) const {
    if (level_ == 0) refuse("{} instead of an object", what);
    if (level_ == 1) refuse("{}: {} instead of an object", in_quotes(name_), what);
    refuse("{}: {} where none belongs, at {}", in_quotes(name_), what, in_quotes(field_));
  }

  bool in_metadata() const { return name_ == "__metadata__"; }

  void begin_entry(const std::string& name) {
    const bool again = name == "__metadata__" ? std::exchange(metadata_seen_, true) : header_.tensors.contains(name);
    if (again) refuse("name {} twice", in_quotes(name));
    name_ = name;
    field_.clear();
    entry_ = {};
    seen_.clear();
  }

  SafetensorsHeader& header_;
  const fs::path& source_;
  int level_ = 0;  // 1: among names, 2: inside one entry, 3: inside its array
  bool metadata_seen_ = false;
  std::string name_, field_;
  TensorEntry entry_;
  std::map<std::string, bool> seen_;
  std::vector<std::uint64_t> numbers_;
};

void check_size(const std::string& name, const TensorEntry& entry, const fs::path& source) {
  const FormatType* type = find_type(entry.dtype);
  if (type == nullptr) {
    throw DataError("{}: tensor {}: unknown dtype {}", source.string(), in_quotes(name), in_quotes(entry.dtype));
  }
  // A size of 0 counts as 1 here: no product of any of the sizes may overflow, whoever multiplies them later.
  std::int64_t product = 1;
  bool fits = true;
  for (const std::int64_t size : entry.shape) {
    fits = fits && !__builtin_mul_overflow(product, std::max<std::int64_t>(size, 1), &product);
  }
  std::int64_t bits = 0;
  fits = fits && !__builtin_mul_overflow(product, static_cast<std::int64_t>(type->bits), &bits);
  if (!fits) {
    throw DataError("{}: tensor {}: shape [{}] overflows", source.string(), in_quotes(name),
                    fmt::join(entry.shape, ", "));
  }
  if (std::count(entry.shape.begin(), entry.shape.end(), 0) > 0) bits = 0;
  const auto bytes = static_cast<std::uint64_t>(bits) / 8;
  if (bits % 8 != 0 || entry.end < entry.begin || entry.end - entry.begin != bytes) {
    throw DataError("{}: tensor {}: {} of shape [{}] needs {} bytes, its data_offsets are [{}, {}]", source.string(),
                    in_quotes(name), entry.dtype, fmt::join(entry.shape, ", "), bytes, entry.begin, entry.end);
  }
}

void check_tiling(const SafetensorsHeader& header, std::uint64_t file_bytes, const fs::path& source) {
  using Item = std::pair<const std::string, TensorEntry>;
  std::vector<const Item*> items;
  for (const Item& item : header.tensors) items.push_back(&item);
  std::sort(items.begin(), items.end(), [](const Item* a, const Item* b) {
    return std::pair(a->second.begin, a->second.end) < std::pair(b->second.begin, b->second.end);
  });
  std::uint64_t expected = 0;
  for (const Item* item : items) {
    if (item->second.begin != expected) {
      throw DataError("{}: tensor {}: begins at byte {} of the data, {} the tensor before it ends at {}",
                      source.string(), in_quotes(item->first), item->second.begin,
                      item->second.begin < expected ? "overlapping:" : "leaving a hole:", expected);
    }
    expected = item->second.end;
  }
  const std::uint64_t data_bytes = file_bytes - header.data_start;
  if (expected != data_bytes) {
    throw DataError("{}: its tensors need {} bytes of data, the file has {}{}", source.string(), expected, data_bytes,
                    data_bytes < expected ? " (truncated?)" : "");
  }
}
}  // namespace

std::uint64_t safetensors_header_bytes(std::span<const std::byte> prefix, std::uint64_t file_bytes,
                                       const fs::path& source) {
  if (prefix.size() < kSafetensorsPrefixBytes || file_bytes < kSafetensorsPrefixBytes) {
    throw DataError("{}: {} bytes are too few for a safetensors file", source.string(), file_bytes);
  }
  std::uint64_t length = 0;
  for (int i = 7; i >= 0; --i) length = length << 8 | std::to_integer<std::uint64_t>(prefix[static_cast<size_t>(i)]);
  if (length > kSafetensorsHeaderCapBytes) {
    throw DataError("{}: a header of {} bytes, more than the {} allowed (not a safetensors file?)", source.string(),
                    length, kSafetensorsHeaderCapBytes);
  }
  if (length > file_bytes - kSafetensorsPrefixBytes) {
    throw DataError("{}: a header of {} bytes in a file of {} (truncated?)", source.string(), length, file_bytes);
  }
  return length;
}

SafetensorsHeader parse_safetensors_header(std::string_view text, std::uint64_t file_bytes, const fs::path& source) {
  if (!text.starts_with('{')) throw DataError("{}: header: does not begin with '{{'", source.string());
  // The parser takes a zero byte for the end of its input and would not look at what follows.
  if (text.find('\0') != text.npos)
    throw DataError("{}: header: not valid JSON at byte {}", source.string(), text.find('\0') + 1);
  SafetensorsHeader header;
  header.data_start = kSafetensorsPrefixBytes + text.size();
  HeaderEvents events(header, source);
  nlohmann::json::sax_parse(text.begin(), text.end(), &events);
  for (const auto& [name, entry] : header.tensors) check_size(name, entry, source);
  check_tiling(header, file_bytes, source);
  return header;
}

TensorLayout layout_of(const TensorEntry& entry, const std::string& name, const fs::path& source) {
  const FormatType* type = find_type(entry.dtype);
  if (type == nullptr || !type->ours) {
    throw DataError("{}: tensor {}: dtype {} is not one we read (F32, BF16, F16, F64, I8, I32, I64)", source.string(),
                    in_quotes(name), entry.dtype);
  }
  const std::vector<std::int64_t>& s = entry.shape;
  switch (s.size()) {
    case 0:
      return {*type->ours, {}};
    case 1:
      return {*type->ours, {s[0]}};
    case 2:
      return {*type->ours, {s[0], s[1]}};
    case 3:
      return {*type->ours, {s[0], s[1], s[2]}};
    case 4:
      return {*type->ours, {s[0], s[1], s[2], s[3]}};
    default:
      throw DataError("{}: tensor {}: {} dimensions, at most {} are read", source.string(), in_quotes(name), s.size(),
                      Shape::kMaxRank);
  }
}

const char* safetensors_name(DType dtype) {
  const auto* found =
      std::find_if(std::begin(kTypes), std::end(kTypes), [&](const auto& t) { return t.ours == dtype; });
  return found->name.data();
}

}  // namespace tadapt

// Plain numbers to bytes and back: what ranks send each other and what partial results are kept as.
#pragma once

#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>

#include "kernels/core/error.h"

namespace tadapt {

template <class T>
void append_bytes(std::string& bytes, std::span<const T> values) {
  static_assert(std::is_trivially_copyable_v<T>);
  bytes.append(reinterpret_cast<const char*>(values.data()), values.size_bytes());
}
template <class T>
void append_bytes(std::string& bytes, const T& value) {
  append_bytes(bytes, std::span<const T>(&value, 1));
}

/// Reads them in the same order. DataError naming `source` where the bytes end too early.
class ByteReader {
 public:
  ByteReader(std::string_view bytes, std::string source) : bytes_(bytes), source_(std::move(source)) {}

  template <class T>
  void take(std::span<T> values) {
    static_assert(std::is_trivially_copyable_v<T>);
    if (values.size_bytes() > bytes_.size()) wrong("ends too early");
    if (values.empty()) return;  // memcpy takes no null pointer, not even for no bytes
    std::memcpy(values.data(), bytes_.data(), values.size_bytes());
    bytes_.remove_prefix(values.size_bytes());
  }
  template <class T>
  T take() {
    T value;
    take(std::span<T>(&value, 1));
    return value;
  }
  bool at_end() const { return bytes_.empty(); }
  [[noreturn]] void wrong(std::string_view what) const { throw DataError("{}: {}", source_, what); }

 private:
  std::string_view bytes_;
  std::string source_;
};

}  // namespace tadapt

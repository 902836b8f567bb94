// Tensor: a view of memory that somebody else owns, with its type, shape and device.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>

#include "kernels/core/bfloat16.h"
#include "kernels/core/error.h"
#include "kernels/core/float16.h"

namespace tadapt {

enum class DType : std::uint8_t { kFloat32, kBFloat16, kFloat16, kFloat64, kInt8, kInt32, kInt64 };
enum class Device : std::uint8_t { kCpu, kCuda };

std::size_t bytes_per_element(DType dtype);
const char* name(DType dtype);    ///< "float32", "bfloat16", …
const char* name(Device device);  ///< "cpu", "cuda"

template <class T>
struct DTypeOf;
template <>
struct DTypeOf<float> {
  static constexpr DType value = DType::kFloat32;
};
template <>
struct DTypeOf<bfloat16> {
  static constexpr DType value = DType::kBFloat16;
};
template <>
struct DTypeOf<float16> {
  static constexpr DType value = DType::kFloat16;
};
template <>
struct DTypeOf<double> {
  static constexpr DType value = DType::kFloat64;
};
template <>
struct DTypeOf<std::int8_t> {
  static constexpr DType value = DType::kInt8;
};
template <>
struct DTypeOf<std::int32_t> {
  static constexpr DType value = DType::kInt32;
};
template <>
struct DTypeOf<std::int64_t> {
  static constexpr DType value = DType::kInt64;
};

/// Sizes of up to four dimensions, row-major (the last is contiguous).
class Shape {
 public:
  static constexpr int kMaxRank = 4;

  Shape() = default;
  Shape(std::initializer_list<std::int64_t> sizes);

  int rank() const { return rank_; }
  std::int64_t operator[](int dimension) const { return sizes_[static_cast<std::size_t>(dimension)]; }
  std::int64_t elements() const;
  friend bool operator==(const Shape&, const Shape&) = default;
  std::string to_string() const;  ///< "[16, 128]"

 private:
  std::array<std::int64_t, kMaxRank> sizes_{};
  int rank_ = 0;
};

}  // namespace tadapt

/// A shape in a message: as to_string() has it, and only made when the message is. Defined in tensor.cc, since it would
/// bring all of fmt's formatting into every object file that names a shape.
template <>
struct fmt::formatter<tadapt::Shape> {
  constexpr auto parse(fmt::format_parse_context& context) { return context.begin(); }
  fmt::format_context::iterator format(const tadapt::Shape& shape, fmt::format_context& context) const;
};

namespace tadapt {

/// A non-owning, contiguous, row-major view. Copying it copies the view, never the numbers; whether an op reads or
/// writes through it is said in that op's docstring.
class Tensor {
 public:
  Tensor() = default;
  Tensor(void* data, DType dtype, Shape shape, Device device = Device::kCpu)
      : data_(static_cast<std::byte*>(data)), shape_(shape), dtype_(dtype), device_(device) {}

  /// A view of host numbers.
  template <class T>
  static Tensor of(std::span<T> values, Shape shape) {
    require_shape(static_cast<std::int64_t>(values.size()) == shape.elements(), "{} values viewed as {}", values.size(),
                  shape);
    return Tensor(values.data(), DTypeOf<T>::value, shape);
  }

  bool empty() const { return data_ == nullptr; }
  DType dtype() const { return dtype_; }
  Device device() const { return device_; }
  const Shape& shape() const { return shape_; }
  int rank() const { return shape_.rank(); }
  std::int64_t size(int dimension) const { return shape_[dimension]; }
  std::int64_t elements() const { return shape_.elements(); }
  std::size_t bytes() const { return static_cast<std::size_t>(elements()) * bytes_per_element(dtype_); }
  void* data() const { return data_; }

  /// The numbers of a host tensor; throws ShapeError when the type is not T or the memory not the host's.
  template <class T>
  std::span<T> span() const {
    require_shape(dtype_ == DTypeOf<T>::value, "tensor {} holds {}, asked for {}", shape_, name(dtype_),
                  name(DTypeOf<T>::value));
    require_shape(device_ == Device::kCpu, "tensor {} is in {} memory", shape_, name(device_));
    return {reinterpret_cast<T*>(data_), static_cast<std::size_t>(elements())};
  }

  /// Rows [begin, end) of the first dimension.
  Tensor rows(std::int64_t begin, std::int64_t end) const;
  /// The same numbers under another shape with as many elements.
  Tensor reshaped(Shape shape) const;

 private:
  std::byte* data_ = nullptr;
  Shape shape_;
  DType dtype_ = DType::kFloat32;
  Device device_ = Device::kCpu;
};

}  // namespace tadapt

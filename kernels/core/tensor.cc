#include "kernels/core/tensor.h"

#include <algorithm>

namespace tadapt {

std::size_t bytes_per_element(DType dtype) {
  switch (dtype) {
    case DType::kFloat32:
    case DType::kInt32:
      return 4;
    case DType::kBFloat16:
    case DType::kFloat16:
      return 2;
    case DType::kFloat64:
    case DType::kInt64:
      return 8;
    case DType::kInt8:
      return 1;
  }
  throw ShapeError("unknown dtype {}", static_cast<int>(dtype));
}

const char* name(DType dtype) {
  switch (dtype) {
    case DType::kFloat32:
      return "float32";
    case DType::kBFloat16:
      return "bfloat16";
    case DType::kFloat16:
      return "float16";
    case DType::kFloat64:
      return "float64";
    case DType::kInt8:
      return "int8";
    case DType::kInt32:
      return "int32";
    case DType::kInt64:
      return "int64";
  }
  return "unknown";
}

const char* name(Device device) { return device == Device::kCpu ? "cpu" : "cuda"; }

Shape::Shape(std::initializer_list<std::int64_t> sizes) {
  require_shape(sizes.size() <= kMaxRank, "{} dimensions, at most {}", sizes.size(), kMaxRank);
  for (const std::int64_t size : sizes) {
    require_shape(size >= 0, "negative size {}", size);
    sizes_[static_cast<std::size_t>(rank_++)] = size;
  }
}

std::int64_t Shape::elements() const {
  std::int64_t product = 1;
  for (int i = 0; i < rank_; ++i) product *= (*this)[i];
  return product;
}

std::string Shape::to_string() const {
  std::string text = "[";
  for (int i = 0; i < rank_; ++i) text += (i == 0 ? "" : ", ") + std::to_string((*this)[i]);
  return text + "]";
}

Tensor Tensor::rows(std::int64_t begin, std::int64_t end) const {
  require_shape(rank() >= 1 && 0 <= begin && begin <= end && end <= size(0), "rows [{}, {}) of {}", begin, end, shape_);
  const std::int64_t per_row = size(0) == 0 ? 0 : elements() / size(0);
  Shape shape;
  switch (rank()) {
    case 1:
      shape = {end - begin};
      break;
    case 2:
      shape = {end - begin, size(1)};
      break;
    case 3:
      shape = {end - begin, size(1), size(2)};
      break;
    default:
      shape = {end - begin, size(1), size(2), size(3)};
  }
  return Tensor(data_ + static_cast<std::size_t>(begin * per_row) * bytes_per_element(dtype_), dtype_, shape, device_);
}

Tensor Tensor::reshaped(Shape shape) const {
  require_shape(shape.elements() == elements(), "{} viewed as {}", shape_, shape);
  return Tensor(data_, dtype_, shape, device_);
}

}  // namespace tadapt

fmt::format_context::iterator fmt::formatter<tadapt::Shape>::format(const tadapt::Shape& shape,
                                                                    fmt::format_context& context) const {
  return std::ranges::copy(shape.to_string(), context.out()).out;
}

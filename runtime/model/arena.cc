#include "runtime/model/arena.h"

#include <algorithm>

namespace tadapt {

void Arena::reserve(std::int64_t bytes) {
  require_shape(used_ == 0, "arena: {} bytes are in use", used_);
  if (capacity_bytes() >= bytes) return;
  memory_ = Buffer();  // released first, so that both are never held
  memory_ = Buffer(device_, static_cast<std::size_t>(bytes));
}

std::int64_t Arena::bytes(DType dtype, Shape shape) {
  constexpr std::int64_t kAlignment = 256;
  const std::int64_t bytes = shape.elements() * static_cast<std::int64_t>(bytes_per_element(dtype));
  return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}

Tensor Arena::take(DType dtype, Shape shape) {
  const std::int64_t wanted = bytes(dtype, shape);
  require_shape(used_ + wanted <= capacity_bytes(), "arena: {} of {} bytes are in use, {} more are needed", used_,
                capacity_bytes(), wanted);
  std::byte* start = static_cast<std::byte*>(memory_.data()) + used_;
  used_ += wanted;
  return Tensor(start, dtype, shape, device_);
}

void Arena::release(std::int64_t mark) { used_ = std::min(used_, mark); }

}  // namespace tadapt

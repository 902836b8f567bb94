// Arena: one piece of device memory, handed out and taken back like a stack.
#pragma once

#include "kernels/core/context.h"

namespace tadapt {

class Arena {
 public:
  explicit Arena(Device device) : device_(device) {}

  /// Has at least this many bytes afterwards. ShapeError while anything is handed out.
  void reserve(std::int64_t bytes);
  std::int64_t capacity_bytes() const { return static_cast<std::int64_t>(memory_.bytes()); }

  /// Memory of undefined content, until release() of an earlier mark. ShapeError naming the bytes when there is no
  /// room.
  Tensor take(DType dtype, Shape shape);
  /// What take() uses up for such a tensor.
  static std::int64_t bytes(DType dtype, Shape shape);

  std::int64_t mark() const { return used_; }
  /// Takes back all that was handed out since `mark`; nothing when an earlier mark was released before.
  void release(std::int64_t mark);

 private:
  Device device_;
  Buffer memory_;
  std::int64_t used_ = 0;
};

}  // namespace tadapt

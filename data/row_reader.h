// RowReader: x and Δ of rows that are numbered through a whole corpus, wherever they are kept.
#pragma once

#include <cstdint>

#include "kernels/core/tensor.h"

namespace tadapt {

class RowReader {
 public:
  virtual ~RowReader() = default;
  virtual std::int64_t width() const = 0;
  /// Type of the rows handed out: bfloat16 or float32.
  virtual DType row_dtype() const = 0;
  /// Rows [begin, end) of a layer: x_out and delta_out are [end - begin, D] of row_dtype() on the host. ShapeError when
  /// they are not, or the reader does not have all these rows.
  virtual void read_rows(int layer, std::int64_t begin, std::int64_t end, Tensor x_out, Tensor delta_out) const = 0;
};

}  // namespace tadapt

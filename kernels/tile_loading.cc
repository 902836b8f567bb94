// Tiles as products take them: of the operand type, rounded if so asked, rows past the end zero.
#include <algorithm>
#include <cstring>

#include "kernels/core/convert.h"
#include "kernels/core/vectorise.h"
#include "kernels/tiled_product.h"

namespace tadapt::cpu {
namespace {
constexpr std::int64_t kBlock = 16;

void clear_rows(const TiledProduct& product, std::int64_t from, void* tile) {
  const std::size_t row_bytes = static_cast<std::size_t>(product.shape().inputs) * bytes_per_element(product.operand());
  std::memset(static_cast<std::byte*>(tile) + static_cast<std::size_t>(from) * row_bytes, 0,
              static_cast<std::size_t>(product.tile_rows() - from) * row_bytes);
}

bool rounds_in_float(const TiledProduct& product) {
  return product.shape().compute == DType::kBFloat16 && product.operand() == DType::kFloat32;
}

/// to[c·stride + r] = from[r·from_stride + c] for r < rows (at most kBlock), c < columns
template <class From, class To>
TADAPT_INLINE void transpose(const From* from, std::int64_t from_stride, std::int64_t rows, std::int64_t columns,
                             To* to, std::int64_t stride) {
  for (std::int64_t c = 0; c < columns; ++c) {
    for (std::int64_t r = 0; r < rows; ++r) {
      to[c * stride + r] = static_cast<To>(static_cast<float>(from[r * from_stride + c]));
    }
  }
}
template <class From, class To>
TADAPT_INLINE void transpose_all(const From* from, std::int64_t from_stride, std::int64_t rows, std::int64_t columns,
                                 To* to) {
  std::int64_t r = 0;
  for (; r + kBlock <= rows; r += kBlock) transpose(from + r * from_stride, from_stride, kBlock, columns, to + r, rows);
  transpose(from + r * from_stride, from_stride, rows - r, columns, to + r, rows);
}

TADAPT_VECTORISED void transposed(const float* from, std::int64_t from_stride, std::int64_t rows, std::int64_t columns,
                                  float* to) {
  transpose_all(from, from_stride, rows, columns, to);
}
TADAPT_VECTORISED void transposed(const float* from, std::int64_t from_stride, std::int64_t rows, std::int64_t columns,
                                  bfloat16* to) {
  transpose_all(from, from_stride, rows, columns, to);
}
TADAPT_VECTORISED void transposed(const bfloat16* from, std::int64_t from_stride, std::int64_t rows,
                                  std::int64_t columns, float* to) {
  transpose_all(from, from_stride, rows, columns, to);
}
TADAPT_VECTORISED void transposed(const bfloat16* from, std::int64_t from_stride, std::int64_t rows,
                                  std::int64_t columns, bfloat16* to) {
  transpose_all(from, from_stride, rows, columns, to);
}
}  // namespace

const void* load_row_tile(const TiledProduct& product, const Tensor& x, std::int64_t begin, std::int64_t count,
                          void* room) {
  const Tensor rows = x.rows(begin, begin + count);
  const bool rounds = rounds_in_float(product) && x.dtype() == DType::kFloat32;
  if (x.dtype() == product.operand() && count == product.tile_rows() && !rounds) return rows.data();
  const Tensor tile(room, product.operand(), {count, product.shape().inputs});
  convert_elements(rows, tile);
  if (rounds) round_to_bfloat16(tile.span<float>());
  clear_rows(product, count, room);
  return room;
}

const void* load_column_tile(const TiledProduct& product, const Tensor& left, std::int64_t begin, std::int64_t count,
                             void* room) {
  const std::int64_t tokens = left.size(0);
  const std::int64_t stride = left.size(1);
  const auto from = [&](auto* source) {
    if (product.operand() == DType::kFloat32) {
      transposed(source + begin, stride, tokens, count, static_cast<float*>(room));
    } else {
      transposed(source + begin, stride, tokens, count, static_cast<bfloat16*>(room));
    }
  };
  if (left.dtype() == DType::kFloat32) {
    from(left.span<float>().data());
  } else {
    from(left.span<bfloat16>().data());
  }
  if (rounds_in_float(product) && left.dtype() == DType::kFloat32) {
    round_to_bfloat16({static_cast<float*>(room), static_cast<std::size_t>(count * tokens)});
  }
  clear_rows(product, count, room);
  return room;
}

}  // namespace tadapt::cpu

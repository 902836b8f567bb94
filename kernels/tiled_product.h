// A product of many rows with packed weights, run as one oneDNN primitive per (tile of rows, panel of outputs).
#pragma once

#include <array>
#include <functional>
#include <optional>
#include <vector>

#include "kernels/matmul.h"
#include "kernels/onednn.h"

namespace tadapt::cpu {

/// The sizes and types of a product; two products alike in all of them give the same bits.
struct ProductShape {
  std::int64_t outputs;  ///< N
  std::int64_t inputs;   ///< K
  DType compute;         ///< float32, or bfloat16: operands rounded to nearest even
  Layout layout;         ///< of the weights that will be packed
  DType source;          ///< dtype of the weights that will be packed: float32 or bfloat16

  friend auto operator<=>(const ProductShape&, const ProductShape&) = default;
};

/// The primitives of one product, made once. Its tiles and panels are functions of N and K only, and each runs on one
/// thread, so a row's result depends on that row and the weights alone. Holds no numbers; safe to run concurrently.
class TiledProduct {
 public:
  explicit TiledProduct(const ProductShape& shape);

  const ProductShape& shape() const { return shape_; }
  std::int64_t tile_rows() const { return tile_rows_; }
  /// What operands are stored as: bfloat16 only where the instruction set multiplies it.
  DType operand() const { return operand_; }
  /// Memory that packed weights take.
  std::size_t packed_bytes() const;

  /// Writes `weights` (the shape's layout and source type) into `packed`, packed_bytes() of 64-byte aligned memory.
  void pack(Context& context, const Tensor& weights, std::byte* packed) const;

  /// Gives a tile: rows [begin, begin + count) as [tile_rows, K] of type operand(), rows from `count` on zero. May use
  /// `room`, a tile of uninitialised memory, or point at the rows where they lie.
  using LoadTile = std::function<const void*(std::int64_t begin, std::int64_t count, void* room)>;

  struct Run {
    std::int64_t rows;
    const LoadTile& load;
    const std::byte* packed;
    const float* bias;  ///< [N] or null
    Epilogue epilogue;
    float* y;  ///< [rows, N]
  };
  void run(Context& context, const Run& run) const;

 private:
  /// A panel width's primitives; a product has at most two widths, the last panel's being its own.
  struct Kernel {
    std::int64_t width;
    dnnl::memory::desc rows, weights, bias, y, scratchpad, source;
    std::array<dnnl::matmul, 2> products;  ///< by Epilogue
    dnnl::reorder reorder;
    std::size_t packed_bytes;
  };
  struct Panel {
    std::int64_t begin;  ///< first output
    std::size_t kernel;  ///< index into kernels_
    std::size_t offset;  ///< into the packed weights
  };
  Kernel make_kernel(std::int64_t width) const;
  void run_tile(Context& context, const Run& run, std::int64_t tile, std::span<const Panel> panels, int thread) const;

  ProductShape shape_;
  DType operand_;
  std::int64_t tile_rows_;
  dnnl::engine engine_;
  dnnl::stream stream_;
  std::vector<Kernel> kernels_;
  std::vector<Panel> panels_;
  std::vector<float> zero_bias_;
};

/// rows [begin, begin + count) of x ([T, K] float32 or bfloat16) as a tile of `product`, for TiledProduct::LoadTile.
const void* load_row_tile(const TiledProduct& product, const Tensor& x, std::int64_t begin, std::int64_t count,
                          void* room);

/// Columns [begin, begin + count) of left ([K, N]) as rows of a tile of `product`.
const void* load_column_tile(const TiledProduct& product, const Tensor& left, std::int64_t begin, std::int64_t count,
                             void* room);

}  // namespace tadapt::cpu

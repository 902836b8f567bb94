#include "kernels/core/elementwise.cuh"
#include "kernels/position_maps.h"

namespace tadapt::cuda {
namespace {

/// 12 bytes an element; factors stay in the cache. 40 registers on sm_90, 6 blocks of 256 threads an SM.
struct Blend {
  const float *gate_factors, *up_factors, *gate, *up, *scale;
  float* out;
  std::int64_t width;
  template <int kWidth>
  __device__ void run(std::int64_t i) const {
    const std::int64_t n = i / width, column = i % width;
    const Pack<float, kWidth> u = load_pack<kWidth>(up, i), s = load_pack<kWidth>(scale, column);
    Pack<float, kWidth> blended = load_pack<kWidth>(gate, i);
    for (int k = 0; k < kWidth; ++k)
      blended.values[k] = (gate_factors[n] * blended.values[k] + up_factors[n] * u.values[k]) * s.values[k];
    store_pack(out, i, blended);
  }
};

/// A block has kTile columns of one position's map and takes kTile of its rows after another; a thread kEach × kEach of
/// the products.
constexpr int kTile = 64;
constexpr int kDepth = 16;
constexpr int kEach = 4;
constexpr int kAcross = kTile / kEach;
constexpr int kThreads = kAcross * kAcross;

struct Mapping {
  const float *maps, *x;
  const std::int32_t *offsets, *rows;
  float* y;
  std::int64_t width, column_tiles;
};

/// Reads a map once for every kTile rows, x once for every kTile columns; 2·D² FLOP a row. 59 registers on sm_90, 4
/// blocks an SM.
__global__ void __launch_bounds__(kThreads) map_tile(Mapping mapping) {
  __shared__ float left[kDepth][kTile], right[kDepth][kTile];  // x, transposed; the map
  const std::int64_t position = blockIdx.x / mapping.column_tiles, width = mapping.width;
  const std::int64_t first_column = blockIdx.x % mapping.column_tiles * kTile;
  const float* map = mapping.maps + position * width * width;
  const int thread = static_cast<int>(threadIdx.x), own_row = thread / kAcross * kEach,
            own_column = thread % kAcross * kEach;
  const std::int32_t end = mapping.offsets[position + 1];
  for (std::int32_t first = mapping.offsets[position]; first < end; first += kTile) {
    float sums[kEach][kEach] = {};
    for (std::int64_t depth = 0; depth < width; depth += kDepth) {
      for (int i = thread; i < kDepth * kTile; i += kThreads) {
        const std::int32_t row = first + i / kDepth;
        const std::int64_t from = depth + i % kDepth;
        left[i % kDepth][i / kDepth] = row < end && from < width ? mapping.x[mapping.rows[row] * width + from] : 0.0f;
        const std::int64_t k = depth + i / kTile, column = first_column + i % kTile;
        right[i / kTile][i % kTile] = k < width && column < width ? map[k * width + column] : 0.0f;
      }
      __syncthreads();
      for (int k = 0; k < kDepth; ++k) {
        TADAPT_UNROLL
        for (int r = 0; r < kEach; ++r) {
          TADAPT_UNROLL
          for (int c = 0; c < kEach; ++c) sums[r][c] += left[k][own_row + r] * right[k][own_column + c];
        }
      }
      __syncthreads();
    }
    TADAPT_UNROLL
    for (int r = 0; r < kEach; ++r) {
      if (first + own_row + r >= end) continue;
      const std::int64_t row = mapping.rows[first + own_row + r] * width;
      TADAPT_UNROLL
      for (int c = 0; c < kEach; ++c) {
        const std::int64_t column = first_column + own_column + c;
        if (column < width) mapping.y[row + column] = mapping.x[row + column] + sums[r][c];
      }
    }
  }
}

}  // namespace

void blend_rows(Context& context, const GatedPair& factors, const GatedPair& rows, const Tensor& scale,
                const Tensor& out) {
  const Blend body{numbers<const float>(factors.gate),
                   numbers<const float>(factors.up),
                   numbers<const float>(rows.gate),
                   numbers<const float>(rows.up),
                   numbers<const float>(scale),
                   numbers<float>(out),
                   out.size(1)};
  const bool whole_packs = out.size(1) % 4 == 0 && aligned_to_16(body.gate, body.up, body.scale, body.out);
  elementwise<4>(context, "blend_rows", out.elements(), whole_packs, body);
}

void map_rows(Context& context, const PositionMaps& maps, const Tensor& x, const Tensor& y) {
  const std::int64_t width = x.size(1), column_tiles = blocks_for(width, kTile);
  const Mapping mapping{numbers<const float>(maps.maps),
                        numbers<const float>(x),
                        numbers<const std::int32_t>(maps.offsets),
                        numbers<const std::int32_t>(maps.rows),
                        numbers<float>(y),
                        width,
                        column_tiles};
  launch(context, "map_rows", {maps.maps.size(0) * column_tiles, kThreads}, map_tile, mapping);
}

}  // namespace tadapt::cuda

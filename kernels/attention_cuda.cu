#include <vector>

#include "kernels/attention.h"
#include "kernels/core/elementwise.cuh"
#include "kernels/core/exponential.h"
#include "kernels/core/memory.h"

namespace tadapt::cuda {
namespace {

constexpr int kQueries = 32;       // rows of a block
constexpr int kKeys = 32;          // looked at together, counted from the sequence's first token
constexpr int kThreadsPerRow = 4;  // that share a query row
constexpr int kThreads = kQueries * kThreadsPerRow;
constexpr int kMostHeadSize = 256;

struct Sizes {
  int sequences, heads, groups, size;
  std::int64_t tiles;  ///< of kQueries rows, over all sequences at most
};

/// Which sequence and rows a tile covers; no rows when there are fewer tiles than the bound.
struct Rows {
  std::int64_t start, begin, end;
};
__device__ Rows rows_of_tile(const std::int32_t* offsets, int sequences, std::int64_t tile) {
  for (int b = 0; b < sequences; ++b) {
    const std::int64_t start = offsets[b], end = offsets[b + 1];
    const std::int64_t tiles = (end - start + kQueries - 1) / kQueries;
    if (tile < tiles) return {start, start + tile * kQueries, min(end, start + (tile + 1) * kQueries)};
    tile -= tiles;
  }
  return {0, 0, 0};
}

/// Σ over the threads that share a row.
__device__ float row_sum(float value) {
  for (int distance = kThreadsPerRow / 2; distance > 0; distance /= 2)
    value += __shfl_xor_sync(kAllLanes, value, distance);
  return value;
}
__device__ float row_maximum(float value) {
  for (int distance = kThreadsPerRow / 2; distance > 0; distance /= 2)
    value = fmaxf(value, __shfl_xor_sync(kAllLanes, value, distance));
  return value;
}

/// Rows [begin, end) of one head into shared memory, `stride` apart, rows from `end` on zero.
__device__ void load_rows(const float* from, std::int64_t begin, std::int64_t end, std::int64_t row_stride, int size,
                          int stride, float* to) {
  for (int i = static_cast<int>(threadIdx.x); i < kKeys * size; i += kThreads) {
    const int row = i / size, d = i % size;
    to[row * stride + d] = begin + row < end ? from[(begin + row) * row_stride + d] : 0.0f;
  }
}

/// A block a tile of query rows and a head; keys and values pass through shared memory tile by tile, the softmax is
/// online. fp32 throughout.
template <int kHeadSize>
__global__ void __launch_bounds__(kThreads) attend(const float* query, const float* key, const float* value,
                                                   const std::int32_t* offsets, Sizes sizes, float scale, float* out) {
  const int head = static_cast<int>(blockIdx.x / sizes.tiles), group = head / (sizes.heads / sizes.groups);
  const Rows rows = rows_of_tile(offsets, sizes.sequences, blockIdx.x % sizes.tiles);
  if (rows.begin == rows.end) return;
  const int size = sizes.size, stride = size + 1;  // one more: rows start in different banks
  float* queries = dynamic_shared<float>();
  float* keys = queries + kQueries * stride;
  float* values = keys + kKeys * stride;
  float* weights = values + kKeys * stride;
  const int row = static_cast<int>(threadIdx.x) / kThreadsPerRow, part = static_cast<int>(threadIdx.x) % kThreadsPerRow;
  load_rows(query + head * size, rows.begin, rows.end, static_cast<std::int64_t>(sizes.heads) * size, size, stride,
            queries);

  constexpr int kOwned = kHeadSize / kThreadsPerRow;
  float sums[kOwned] = {};
  float largest = -INFINITY, total = 0.0f;
  for (std::int64_t first = rows.start; first < rows.end; first += kKeys) {
    __syncthreads();
    const std::int64_t key_stride = static_cast<std::int64_t>(sizes.groups) * size;
    load_rows(key + group * size, first, rows.end, key_stride, size, stride, keys);
    load_rows(value + group * size, first, rows.end, key_stride, size, stride, values);
    __syncthreads();
    float scores[kKeys / kThreadsPerRow];
    float tile_largest = -INFINITY;
    TADAPT_UNROLL
    for (int j = 0; j < kKeys / kThreadsPerRow; ++j) {
      const int column = j * kThreadsPerRow + part;
      float score = 0.0f;
      for (int d = 0; d < size; ++d) score += queries[row * stride + d] * keys[column * stride + d];
      scores[j] = first + column <= rows.begin + row ? score * scale : -INFINITY;
      tile_largest = fmaxf(tile_largest, scores[j]);
    }
    const float new_largest = fmaxf(largest, row_maximum(tile_largest));
    // A tile beyond the row's own position has no key for it: nothing changes then.
    const float shift = new_largest == -INFINITY ? 0.0f : new_largest;
    const float rescale = exponential(largest - shift);
    float tile_total = 0.0f;
    TADAPT_UNROLL
    for (int j = 0; j < kKeys / kThreadsPerRow; ++j) {
      const float weight = exponential(scores[j] - shift);
      weights[row * (kKeys + 1) + j * kThreadsPerRow + part] = weight;
      tile_total += weight;
    }
    total = total * rescale + row_sum(tile_total);
    largest = new_largest;
    __syncwarp();  // a row's threads are neighbours in one warp
    TADAPT_UNROLL
    for (int i = 0; i < kOwned; ++i) {
      const int d = i * kThreadsPerRow + part;
      if (d >= size) continue;
      float sum = sums[i] * rescale;
      for (int column = 0; column < kKeys; ++column)
        sum += weights[row * (kKeys + 1) + column] * values[column * stride + d];
      sums[i] = sum;
    }
    __syncwarp();
  }
  if (rows.begin + row >= rows.end) return;
  float* to = out + ((rows.begin + row) * sizes.heads + head) * size;
  TADAPT_UNROLL
  for (int i = 0; i < kOwned; ++i) {
    const int d = i * kThreadsPerRow + part;
    if (d < size) to[d] = sums[i] / total;
  }
}

template <int kHeadSize>
void start(Context& context, const AttentionInput& input, const Sizes& sizes, const Tensor& out) {
  const std::size_t shared =
      sizeof(float) * static_cast<std::size_t>((kQueries + 2 * kKeys) * (sizes.size + 1) + kQueries * (kKeys + 1));
  check(cudaFuncSetAttribute(attend<kHeadSize>, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared)),
        "cudaFuncSetAttribute");
  launch(context, "causal_attention", {sizes.tiles * sizes.heads, kThreads, shared}, attend<kHeadSize>,
         numbers<const float>(input.query), numbers<const float>(input.key), numbers<const float>(input.value),
         numbers<const std::int32_t>(input.offsets), sizes, 1.0f / std::sqrt(static_cast<float>(sizes.size)),
         numbers<float>(out));
}

}  // namespace

void causal_attention(Context& context, const AttentionInput& input, const Tensor& out) {
  const std::int64_t sequences = input.offsets.size(0) - 1, tokens = input.query.size(0);
  const Sizes sizes{static_cast<int>(sequences), static_cast<int>(input.query.size(1)),
                    static_cast<int>(input.key.size(1)), static_cast<int>(input.query.size(2)),
                    blocks_for(tokens, kQueries) + sequences};
  require_shape(sizes.size <= kMostHeadSize, "causal_attention: head size {}, at most {} on a GPU", sizes.size,
                kMostHeadSize);
  std::vector<std::int32_t> offsets(static_cast<std::size_t>(sequences + 1));
  cuda::copy(context, input.offsets, Tensor::of(std::span(offsets), {sequences + 1}));
  cuda::synchronize(context);
  require_sequences(offsets, tokens);
  if (tokens == 0) return;
  if (sizes.size <= 64) return start<64>(context, input, sizes, out);
  if (sizes.size <= 128) return start<128>(context, input, sizes, out);
  start<kMostHeadSize>(context, input, sizes, out);
}

}  // namespace tadapt::cuda

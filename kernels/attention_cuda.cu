#include <numbers>

#include "kernels/attention.h"
#include "kernels/attention_bfloat16.cuh"
#include "kernels/attention_float32.cuh"
#include "kernels/core/exponential.h"

namespace tadapt::cuda {
namespace {

struct Results {
  float* out;
  float* log_sums;  ///< or none
};

struct Float32Attention {
  const float *query, *key, *value;
  float* out;
  float* log_sums;  ///< or none
  AttentionSizes sizes;
  float scale;  ///< 1 / √h
};

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

/// A block a tile of query rows and a head; keys and values pass through shared memory tile by tile, the softmax is
/// online. fp32 throughout. For its 32 rows a block reads 8·h bytes a key that they see, reads and writes 4·h bytes a
/// row. On sm_90, of 128 threads: h <= 64: 96 registers, 29 KB, 5 blocks an SM; h <= 128: 127, 53 KB, 4; h <= 256: 167,
/// 101 KB, 2.
template <int kHeadSize>
__global__ void __launch_bounds__(kThreads) attend_float32(Float32Attention in, QueryTiles tiles) {
  const AttentionSizes& sizes = in.sizes;
  const QueryTile rows = tiles.tiles[blockIdx.x / static_cast<unsigned>(sizes.heads)];
  const int head = static_cast<int>(blockIdx.x % static_cast<unsigned>(sizes.heads)), group = sizes.group_of(head);
  const int size = sizes.size, stride = size + 1;  // one more: rows start in different banks
  float* queries = dynamic_shared<float>();
  float* keys = queries + kRows * stride;
  float* values = keys + kRows * stride;
  float* weights = values + kRows * stride;
  const int row = static_cast<int>(threadIdx.x) / kThreadsPerRow, part = static_cast<int>(threadIdx.x) % kThreadsPerRow;
  load_rows(in.query + head * size, rows.begin, rows.end, static_cast<std::int64_t>(sizes.heads) * size, size, stride,
            queries);

  constexpr int kOwned = kHeadSize / kThreadsPerRow;
  float sums[kOwned] = {};
  float largest = -INFINITY, total = 0.0f;
  for (std::int32_t first = rows.start; first < rows.end; first += kRows) {
    __syncthreads();
    const std::int64_t key_stride = static_cast<std::int64_t>(sizes.groups) * size;
    load_rows(in.key + group * size, first, rows.end, key_stride, size, stride, keys);
    load_rows(in.value + group * size, first, rows.end, key_stride, size, stride, values);
    __syncthreads();
    float scores[kRows / kThreadsPerRow];
    float tile_largest = -INFINITY;
    TADAPT_UNROLL
    for (int j = 0; j < kRows / kThreadsPerRow; ++j) {
      const int column = j * kThreadsPerRow + part;
      float score = 0.0f;
      for (int d = 0; d < size; ++d) score += queries[row * stride + d] * keys[column * stride + d];
      scores[j] = first + column <= rows.begin + row ? score * in.scale : -INFINITY;
      tile_largest = fmaxf(tile_largest, scores[j]);
    }
    const float new_largest = fmaxf(largest, row_maximum(tile_largest));
    // A tile beyond the row's own position has no key for it: nothing changes then.
    const float shift = new_largest == -INFINITY ? 0.0f : new_largest;
    const float rescale = exponential(largest - shift);
    float tile_total = 0.0f;
    TADAPT_UNROLL
    for (int j = 0; j < kRows / kThreadsPerRow; ++j) {
      const float weight = exponential(scores[j] - shift);
      weights[row * (kRows + 1) + j * kThreadsPerRow + part] = weight;
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
      for (int column = 0; column < kRows; ++column)
        sum += weights[row * (kRows + 1) + column] * values[column * stride + d];
      sums[i] = sum;
    }
    __syncwarp();
  }
  if (rows.begin + row >= rows.end) return;
  const std::int64_t at = static_cast<std::int64_t>(rows.begin + row) * sizes.heads + head;
  if (in.log_sums != nullptr && part == 0) in.log_sums[at] = largest + logf(total);
  float* to = in.out + at * size;
  TADAPT_UNROLL
  for (int i = 0; i < kOwned; ++i) {
    const int d = i * kThreadsPerRow + part;
    if (d < size) to[d] = sums[i] / total;
  }
}

template <int kHeadSize>
void start_float32(Context& context, const AttentionInput& input, const AttentionSizes& sizes, const Results& to) {
  const std::size_t shared =
      sizeof(float) * static_cast<std::size_t>(3 * kRows * (sizes.size + 1) + kRows * (kRows + 1));
  launch_tiles(context, {0, kThreads, shared}, query_tiles(input.offsets.span<std::int32_t>(), kRows), sizes.heads,
               attend_float32<kHeadSize>,
               {numbers<const float>(input.query), numbers<const float>(input.key), numbers<const float>(input.value),
                to.out, to.log_sums, sizes, 1.0f / std::sqrt(static_cast<float>(sizes.size))});
}

template <class T>
void start_bfloat16(Context& context, const AttentionInput& input, const AttentionSizes& sizes, const Results& to) {
  const std::int64_t elements = input.key.size(0) * input.key.size(1) * padded_size(sizes.size);
  auto* rounded = static_cast<bfloat16*>(context.scratch(0, 2 * static_cast<std::size_t>(elements) * sizeof(bfloat16)));
  const Bfloat16Rows key = round_rows(context, input.key, rounded);
  const Bfloat16Rows value = round_rows(context, input.value, rounded + elements);
  const auto* query = numbers<const float>(input.query);
  launch_tiles(context, {0, T::kThreads, T::kSharedBytes}, query_tiles(input.offsets.span<std::int32_t>(), T::kRows),
               sizes.heads, attend_bfloat16<T>,
               {query, key, value, to.out, to.log_sums, sizes, sizes.size % 4 == 0 && aligned_to_16(query),
                std::numbers::log2e_v<float> / std::sqrt(static_cast<float>(sizes.size))});
}

}  // namespace

void causal_attention(Context& context, const AttentionInput& input, const Tensor& out, const Tensor& log_sums) {
  const AttentionSizes sizes{static_cast<int>(input.query.size(1)), static_cast<int>(input.key.size(1)),
                             static_cast<int>(input.query.size(2))};
  require_shape(sizes.size <= kMostHeadSize, "causal_attention: head size {}, at most {} on a GPU", sizes.size,
                kMostHeadSize);
  require_sequences(input.offsets.span<std::int32_t>(), input.query.size(0));
  if (out.elements() == 0) return;
  const auto start = [&](auto float32, auto bfloat16) {
    (input.compute == DType::kFloat32 ? float32 : bfloat16)(context, input, sizes,
                                                            {numbers<float>(out), numbers<float>(log_sums)});
  };
  if (sizes.size <= 64) return start(&start_float32<64>, &start_bfloat16<Tiling<64, 2, 64>>);
  if (sizes.size <= 128) return start(&start_float32<128>, &start_bfloat16<Tiling<128, 2, 64>>);
  start(&start_float32<kMostHeadSize>, &start_bfloat16<Tiling<kMostHeadSize, 1, 32>>);
}

}  // namespace tadapt::cuda

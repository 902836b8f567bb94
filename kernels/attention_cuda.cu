#include <numbers>

#include "kernels/attention.h"
#include "kernels/attention_bfloat16.cuh"
#include "kernels/core/exponential.h"

namespace tadapt::cuda {
namespace {

constexpr int kQueries = 32;       // rows of a block
constexpr int kKeys = 32;          // looked at together, counted from the sequence's first token
constexpr int kThreadsPerRow = 4;  // that share a query row
constexpr int kThreads = kQueries * kThreadsPerRow;
constexpr int kMostHeadSize = 256;

struct Float32Attention {
  const float *query, *key, *value;
  float* out;
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

/// Rows [begin, end) of one head into shared memory, `stride` apart, rows from `end` on zero.
__device__ void load_rows(const float* from, std::int64_t begin, std::int64_t end, std::int64_t row_stride, int size,
                          int stride, float* to) {
  for (int i = static_cast<int>(threadIdx.x); i < kKeys * size; i += kThreads) {
    const int row = i / size, d = i % size;
    to[row * stride + d] = begin + row < end ? from[(begin + row) * row_stride + d] : 0.0f;
  }
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
  float* keys = queries + kQueries * stride;
  float* values = keys + kKeys * stride;
  float* weights = values + kKeys * stride;
  const int row = static_cast<int>(threadIdx.x) / kThreadsPerRow, part = static_cast<int>(threadIdx.x) % kThreadsPerRow;
  load_rows(in.query + head * size, rows.begin, rows.end, static_cast<std::int64_t>(sizes.heads) * size, size, stride,
            queries);

  constexpr int kOwned = kHeadSize / kThreadsPerRow;
  float sums[kOwned] = {};
  float largest = -INFINITY, total = 0.0f;
  for (std::int32_t first = rows.start; first < rows.end; first += kKeys) {
    __syncthreads();
    const std::int64_t key_stride = static_cast<std::int64_t>(sizes.groups) * size;
    load_rows(in.key + group * size, first, rows.end, key_stride, size, stride, keys);
    load_rows(in.value + group * size, first, rows.end, key_stride, size, stride, values);
    __syncthreads();
    float scores[kKeys / kThreadsPerRow];
    float tile_largest = -INFINITY;
    TADAPT_UNROLL
    for (int j = 0; j < kKeys / kThreadsPerRow; ++j) {
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
  float* to = in.out + (static_cast<std::int64_t>(rows.begin + row) * sizes.heads + head) * size;
  TADAPT_UNROLL
  for (int i = 0; i < kOwned; ++i) {
    const int d = i * kThreadsPerRow + part;
    if (d < size) to[d] = sums[i] / total;
  }
}

template <int kHeadSize>
void start_float32(Context& context, const AttentionInput& input, const AttentionSizes& sizes, const Tensor& out) {
  const std::size_t shared =
      sizeof(float) * static_cast<std::size_t>((kQueries + 2 * kKeys) * (sizes.size + 1) + kQueries * (kKeys + 1));
  launch_tiles(context, {0, kThreads, shared}, query_tiles(input.offsets.span<std::int32_t>(), kQueries),
               attend_float32<kHeadSize>,
               {numbers<const float>(input.query), numbers<const float>(input.key), numbers<const float>(input.value),
                numbers<float>(out), sizes, 1.0f / std::sqrt(static_cast<float>(sizes.size))});
}

/// The tensor in bf16 at `to`, each head behind zeros up to `padded`.
void round_rows(Context& context, const Tensor& from, int padded, bfloat16* to) {
  const int size = static_cast<int>(from.size(2));
  const auto* numbers_of = numbers<const float>(from);
  elementwise<1>(context, "causal_attention", from.size(0) * from.size(1) * padded / 8, true,
                 RoundRows{numbers_of, reinterpret_cast<Bfloat16Pair*>(to), size, padded,
                           size % 4 == 0 && aligned_to_16(numbers_of)});
}

template <class T>
void start_bfloat16(Context& context, const AttentionInput& input, const AttentionSizes& sizes, const Tensor& out) {
  const int padded = static_cast<int>(blocks_for(sizes.size, 8)) * 8;
  const std::int64_t elements = input.key.size(0) * input.key.size(1) * padded;
  auto* key = static_cast<bfloat16*>(context.scratch(0, 2 * static_cast<std::size_t>(elements) * sizeof(bfloat16)));
  round_rows(context, input.key, padded, key);
  round_rows(context, input.value, padded, key + elements);
  const auto* query = numbers<const float>(input.query);
  launch_tiles(
      context, {0, T::kThreads, T::kSharedBytes}, query_tiles(input.offsets.span<std::int32_t>(), T::kRows),
      attend_bfloat16<T>,
      {query, key, key + elements, numbers<float>(out), sizes, padded, sizes.size % 4 == 0 && aligned_to_16(query),
       std::numbers::log2e_v<float> / std::sqrt(static_cast<float>(sizes.size))});
}

}  // namespace

void causal_attention(Context& context, const AttentionInput& input, const Tensor& out) {
  const AttentionSizes sizes{static_cast<int>(input.query.size(1)), static_cast<int>(input.key.size(1)),
                             static_cast<int>(input.query.size(2))};
  require_shape(sizes.size <= kMostHeadSize, "causal_attention: head size {}, at most {} on a GPU", sizes.size,
                kMostHeadSize);
  require_sequences(input.offsets.span<std::int32_t>(), input.query.size(0));
  if (out.elements() == 0) return;
  const auto start = [&](auto float32, auto bfloat16) {
    (input.compute == DType::kFloat32 ? float32 : bfloat16)(context, input, sizes, out);
  };
  if (sizes.size <= 64) return start(&start_float32<64>, &start_bfloat16<Tiling<64, 2, 64>>);
  if (sizes.size <= 128) return start(&start_float32<128>, &start_bfloat16<Tiling<128, 2, 64>>);
  start(&start_float32<kMostHeadSize>, &start_bfloat16<Tiling<kMostHeadSize, 1, 32>>);
}

}  // namespace tadapt::cuda

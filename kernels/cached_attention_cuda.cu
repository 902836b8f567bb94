#include "kernels/cached_attention.h"
#include "kernels/core/elementwise.cuh"
#include "kernels/core/exponential.h"

namespace tadapt::cuda {
namespace {

constexpr int kWarps = 8;  // of a block: that many heads of one row, those of a group beside each other
constexpr int kMostHeadSize = 256;
constexpr int kPage = static_cast<int>(kPageTokens);
constexpr int kPartPages = 8;  // joined afterwards: long sequences spread over blocks
constexpr int kPartTokens = kPartPages * kPage;

struct CacheSizes {
  int heads, groups, size, columns;
  int parts;  ///< of the longest sequence that the tables have room for
  __host__ __device__ int group_of(int head) const { return head / (heads / groups); }
};

/// Where a part's results lie: [R, H, parts, h + 2], the last two its maximum and its sum.
__device__ float* part_of(float* partial, const CacheSizes& sizes, std::int64_t row, int head, int part) {
  return partial + ((row * sizes.heads + head) * sizes.parts + part) * (sizes.size + 2);
}

template <class T>
struct PartInput {
  const float* query;
  const T *keys, *values;
  const std::int32_t *positions, *tables;
  float* partial;
  CacheSizes sizes;
  std::int64_t jobs;  ///< R · parts · H
  float scale;        ///< 1 / √h
};

__device__ float warp_maximum(float value) {
  for (int distance = kWarp / 2; distance > 0; distance /= 2)
    value = fmaxf(value, __shfl_xor_sync(kAllLanes, value, distance));
  return value;
}

/// A warp a row, part and head, online softmax over 32 keys at a time: a lane a key for the scores, a lane every 32nd
/// number of the head for the sums, both read as they lie. Heads of a group run side by side, so that keys and values
/// come once from memory: 2·h elements a key and group. On sm_90 no shared memory, 256 threads of 48 registers, of 64
/// for float32 heads of 256: 5 and 4 blocks an SM.
template <class T, int kHeadSize>
__global__ void __launch_bounds__(kWarps* kWarp) attend_part(PartInput<T> in) {
  const CacheSizes& sizes = in.sizes;
  const int lane = static_cast<int>(threadIdx.x) % kWarp, size = sizes.size;
  const std::int64_t job = static_cast<std::int64_t>(blockIdx.x) * kWarps + threadIdx.x / kWarp;
  if (job >= in.jobs) return;
  const int head = static_cast<int>(job % sizes.heads), part = static_cast<int>(job / sizes.heads % sizes.parts);
  const std::int64_t row = job / sizes.heads / sizes.parts;
  const int position = in.positions[row], begin = part * kPartTokens;
  if (begin > position) return;
  const int end = position + 1 < begin + kPartTokens ? position + 1 : begin + kPartTokens;
  const float* query = in.query + (row * sizes.heads + head) * size;

  constexpr int kOwned = kHeadSize / kWarp;
  float sums[kOwned] = {};
  float largest = -INFINITY, total = 0.0f;
  for (int first = begin; first < end; first += kWarp) {
    const std::int64_t page = in.tables[row * sizes.columns + first / kPage];
    const std::int64_t tile = (page * sizes.groups + sizes.group_of(head)) * size * kPage;
    const T* keys = in.keys + tile + first % kPage + lane;
    const T* values = in.values + tile + static_cast<std::int64_t>(first % kPage) * size;
    float score = 0.0f;
    for (int d = 0; d < size; ++d) score += query[d] * static_cast<float>(keys[d * kPage]);
    score = first + lane < end ? score * in.scale : -INFINITY;
    const float new_largest = fmaxf(largest, warp_maximum(score));
    const float weight = exponential(score - new_largest), rescale = exponential(largest - new_largest);
    total = total * rescale + warp_sum(weight);
    largest = new_largest;
    TADAPT_UNROLL
    for (int i = 0; i < kOwned; ++i) sums[i] *= rescale;
    const int count = end - first < kWarp ? end - first : kWarp;
    for (int key = 0; key < count; ++key) {
      const float its_weight = __shfl_sync(kAllLanes, weight, key);
      TADAPT_UNROLL
      for (int i = 0; i < kOwned; ++i) {
        const int d = i * kWarp + lane;
        if (d < size) sums[i] += its_weight * static_cast<float>(values[key * size + d]);
      }
    }
  }
  float* to = part_of(in.partial, sizes, row, head, part);
  TADAPT_UNROLL
  for (int i = 0; i < kOwned; ++i) {
    const int d = i * kWarp + lane;
    if (d < size) to[d] = sums[i];
  }
  if (lane != 0) return;
  to[size] = largest;
  to[size + 1] = total;
}

/// A block a row and head joins its parts, first to last: reads 4·(h + 2) bytes a part, writes 4·h.
__global__ void __launch_bounds__(kMostHeadSize)
    join_parts(float* partial, const std::int32_t* positions, CacheSizes sizes, float* out) {
  const std::int64_t row = blockIdx.x / static_cast<unsigned>(sizes.heads);
  const int head = static_cast<int>(blockIdx.x % static_cast<unsigned>(sizes.heads));
  const int d = static_cast<int>(threadIdx.x), parts = positions[row] / kPartTokens + 1;
  if (d >= sizes.size) return;
  float largest = -INFINITY;
  for (int part = 0; part < parts; ++part)
    largest = fmaxf(largest, part_of(partial, sizes, row, head, part)[sizes.size]);
  float sum = 0.0f, total = 0.0f;
  for (int part = 0; part < parts; ++part) {
    const float* from = part_of(partial, sizes, row, head, part);
    const float factor = exponential(from[sizes.size] - largest);
    sum += factor * from[d];
    total += factor * from[sizes.size + 1];
  }
  out[(row * sizes.heads + head) * sizes.size + d] = sum / total;
}

/// A block a token; reads 8 bytes an element of key, writes two elements of the cache.
template <class T>
__global__ void __launch_bounds__(kMostHeadSize)
    store(const float* key, const float* value, const std::int32_t* slots, int groups, int size, T* keys, T* values) {
  const std::int64_t page = slots[blockIdx.x] / kPage, place = slots[blockIdx.x] % kPage;
  const std::int64_t row = static_cast<std::int64_t>(blockIdx.x) * groups * size;
  for (int i = static_cast<int>(threadIdx.x); i < groups * size; i += static_cast<int>(blockDim.x)) {
    const std::int64_t tile = (page * groups + i / size) * size * kPage;
    const int d = i % size;
    keys[tile + d * kPage + place] = static_cast<T>(key[row + i]);
    values[tile + place * size + d] = static_cast<T>(value[row + i]);
  }
}

template <class T, int kHeadSize>
void attend(Context& context, const CachedQueries& input, const CachePages& pages, const CacheSizes& sizes,
            const Tensor& out) {
  const std::int64_t rows = input.query.size(0), heads = rows * sizes.heads, jobs = heads * sizes.parts;
  auto* partial =
      static_cast<float*>(context.scratch(0, static_cast<std::size_t>(jobs * (sizes.size + 2)) * sizeof(float)));
  const auto* positions = numbers<const std::int32_t>(input.positions);
  launch(context, "cached_attention", {blocks_for(jobs, kWarps), kWarps * kWarp}, attend_part<T, kHeadSize>,
         PartInput<T>{numbers<const float>(input.query), numbers<const T>(pages.keys), numbers<const T>(pages.values),
                      positions, numbers<const std::int32_t>(input.tables), partial, sizes, jobs,
                      1.0f / std::sqrt(static_cast<float>(sizes.size))});
  const int threads = static_cast<int>(blocks_for(sizes.size, kWarp)) * kWarp;
  launch(context, "cached_attention", {heads, threads}, join_parts, partial, positions, sizes, numbers<float>(out));
}

template <class T>
void store_as(Context& context, const Tensor& key, const Tensor& value, const Tensor& slots, const CachePages& pages) {
  launch(context, "store_in_cache", {key.size(0), kMostHeadSize}, store<T>, numbers<const float>(key),
         numbers<const float>(value), numbers<const std::int32_t>(slots), static_cast<int>(key.size(1)),
         static_cast<int>(key.size(2)), numbers<T>(pages.keys), numbers<T>(pages.values));
}

}  // namespace

void store_in_cache(Context& context, const Tensor& key, const Tensor& value, const Tensor& slots,
                    const CachePages& pages) {
  if (pages.keys.dtype() == DType::kFloat32) return store_as<float>(context, key, value, slots, pages);
  store_as<bfloat16>(context, key, value, slots, pages);
}

void cached_attention(Context& context, const CachedQueries& input, const CachePages& pages, const Tensor& out) {
  const auto columns = static_cast<int>(input.tables.size(1));
  const CacheSizes sizes{static_cast<int>(input.query.size(1)), static_cast<int>(pages.keys.size(1)),
                         static_cast<int>(input.query.size(2)), columns,
                         static_cast<int>(blocks_for(columns, kPartPages))};
  require_shape(sizes.size <= kMostHeadSize, "cached_attention: head size {}, at most {} on a GPU", sizes.size,
                kMostHeadSize);
  if (out.elements() == 0) return;
  const auto start = [&](auto float32, auto bfloat16s) {
    (pages.keys.dtype() == DType::kFloat32 ? float32 : bfloat16s)(context, input, pages, sizes, out);
  };
  if (sizes.size <= 64) return start(&attend<float, 64>, &attend<bfloat16, 64>);
  if (sizes.size <= 128) return start(&attend<float, 128>, &attend<bfloat16, 128>);
  start(&attend<float, kMostHeadSize>, &attend<bfloat16, kMostHeadSize>);
}

}  // namespace tadapt::cuda

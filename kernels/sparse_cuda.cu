#include "kernels/core/elementwise.cuh"
#include "kernels/core/memory.h"
#include "kernels/sparse.h"
#include "kernels/sparse_rows.cuh"

namespace tadapt::cuda {
namespace {

/// With up to 32 registers a thread, as here on sm_90 unless said otherwise, 8 blocks fill an SM.
constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarp;
/// Most pairs of a feature that one block takes, unless kMostPartBytes of scratch cannot hold the parts: features are
/// skewed, a few are active on most tokens.
constexpr std::int64_t kStretch = 256;
constexpr std::int64_t kMostPartBytes = std::int64_t{64} << 20;

__device__ bool is_pair(float activation) { return !(activation <= 0.0f); }

/// A block a token, in packs of kWidth: reads 4·F bytes.
template <int kWidth>
__global__ void __launch_bounds__(kThreads)
    count_row(const float* activations, std::int64_t features, std::int32_t* offsets) {
  __shared__ int room[kWarps];
  int count = 0;
  for (std::int64_t i = static_cast<std::int64_t>(threadIdx.x) * kWidth; i < features; i += kThreads * kWidth) {
    const Pack<float, kWidth> pack = load_pack<kWidth>(activations, blockIdx.x * features + i);
    for (int k = 0; k < kWidth; ++k) count += is_pair(pack.values[k]) ? 1 : 0;
  }
  count = block_sum(count, room);
  if (threadIdx.x == 0) offsets[blockIdx.x + 1] = count;
}

/// counts_i = Σ_{j <= i} counts_j, by one block: each thread takes a stretch. Reads 8 and writes 4 bytes a count.
__global__ void __launch_bounds__(1024) scan(std::int32_t* counts, std::int64_t n) {
  __shared__ std::int32_t warps[kWarp];
  const std::int64_t each = (n + blockDim.x - 1) / blockDim.x;
  const std::int64_t begin = min(n, threadIdx.x * each), end = min(n, begin + each);
  std::int32_t mine = 0;
  for (std::int64_t i = begin; i < end; ++i) mine += counts[i];
  std::int32_t before = mine;  // inclusive over the warp, then exclusive over the block
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
  for (int distance = 1; distance < kWarp; distance *= 2) {
    const std::int32_t other = __shfl_up_sync(kAllLanes, before, distance);
    if (lane >= distance) before += other;
  }
  if (lane == kWarp - 1) warps[warp] = before;
  __syncthreads();
  before -= mine;
  for (int w = 0; w < warp; ++w) before += warps[w];
  for (std::int64_t i = begin; i < end; ++i) {
    before += counts[i];
    counts[i] = before;
  }
}

/// A block a token, in packs of kWidth; features keep their order: lanes by ballots, warps by their counts. Reads 4·F
/// bytes, writes 8 a pair.
template <int kWidth>
__global__ void __launch_bounds__(kThreads) gather_row(const float* activations, std::int64_t features,
                                                       const std::int32_t* offsets, std::int32_t* ids, float* values) {
  __shared__ int counts[2][kWarps];  // in turn, so that one barrier a round is enough
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
  std::int64_t place = offsets[blockIdx.x];
  int turn = 0;
  for (std::int64_t begin = 0; begin < features; begin += kThreads * kWidth, turn = 1 - turn) {
    const std::int64_t first = begin + static_cast<std::int64_t>(threadIdx.x) * kWidth;
    Pack<float, kWidth> pack = {};
    if (first < features) pack = load_pack<kWidth>(activations, blockIdx.x * features + first);
    int before = 0, here = 0;
    for (int k = 0; k < kWidth; ++k) {
      const unsigned lanes = __ballot_sync(kAllLanes, is_pair(pack.values[k]) ? 1 : 0);
      before += __popc(lanes & ((1u << lane) - 1u));
      here += __popc(lanes);
    }
    if (lane == 0) counts[turn][warp] = here;
    __syncthreads();
    std::int64_t at = place + before;
    for (int w = 0; w < kWarps; ++w) {
      if (w < warp) at += counts[turn][w];
      place += counts[turn][w];
    }
    for (int k = 0; k < kWidth; ++k) {
      if (!is_pair(pack.values[k])) continue;
      ids[at] = static_cast<std::int32_t>(first + k);
      values[at++] = pack.values[k];
    }
  }
}

/// The tokens of one tile, walked by one warp, one token after another: a token has each feature at most once, so lanes
/// never meet, and no atomics are needed. Blocks are one warp, 32 of them an SM at most: half its warps.
struct Tiles {
  std::int64_t tokens, each, features;
  __host__ __device__ std::int64_t count() const { return (tokens + each - 1) / each; }
};
template <class Visit>
__device__ void walk_tile(const Tiles& tiles, const std::int32_t* offsets, Visit visit) {
  const std::int64_t begin = blockIdx.x * tiles.each, end = min(tiles.tokens, begin + tiles.each);
  for (std::int64_t t = begin; t < end; ++t) {
    for (std::int32_t p = offsets[t] + static_cast<std::int32_t>(threadIdx.x); p < offsets[t + 1]; p += kWarp)
      visit(static_cast<std::int32_t>(t), p);
    __syncwarp();
  }
}
/// places [tiles, F] = pairs of each feature in each tile. 12 bytes a pair.
__global__ void __launch_bounds__(kWarp)
    count_tile(Tiles tiles, const std::int32_t* offsets, const std::int32_t* ids, std::int32_t* places) {
  std::int32_t* mine = places + blockIdx.x * tiles.features;
  walk_tile(tiles, offsets, [&](std::int32_t, std::int32_t p) { mine[ids[p]] += 1; });
}
/// places become the pairs of the feature in the tiles before; offsets_{i+1} their number over all tiles. 8 bytes a
/// place.
__global__ void __launch_bounds__(kThreads) scan_tiles(Tiles tiles, std::int32_t* places, std::int32_t* offsets) {
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= tiles.features) return;
  std::int32_t before = 0;
  for (std::int64_t tile = 0; tile < tiles.count(); ++tile) {
    const std::int32_t here = places[tile * tiles.features + i];
    places[tile * tiles.features + i] = before;
    before += here;
  }
  offsets[i + 1] = before;
}
/// 24 bytes a pair.
__global__ void __launch_bounds__(kWarp)
    place_tile(Tiles tiles, const std::int32_t* offsets, const std::int32_t* ids, std::int32_t* places,
               const std::int32_t* feature_offsets, std::int32_t* tokens, std::int32_t* pairs) {
  std::int32_t* mine = places + blockIdx.x * tiles.features;
  walk_tile(tiles, offsets, [&](std::int32_t t, std::int32_t p) {
    const std::int32_t at = feature_offsets[ids[p]] + mine[ids[p]]++;
    tokens[at] = t;
    pairs[at] = p;
  });
}

/// A block a token, a warp a pair: the cotangent stays in first-level cache while its pairs' decoder rows go by, one
/// row a pair. Up to 44 registers: 10 blocks of 128 threads an SM.
template <class T, int kWidth>
__global__ void __launch_bounds__(kRowThreads)
    pair_gradient(const std::int32_t* offsets, const std::int32_t* ids, const float* activations, const T* decoder,
                  const T* cotangent, const float* norms, FeatureGradient formula, std::int64_t width,
                  float* gradient) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
  const T* c = cotangent + blockIdx.x * width;
  for (std::int32_t p = offsets[blockIdx.x] + warp; p < offsets[blockIdx.x + 1]; p += kRowThreads / kWarp) {
    const T* row = decoder + ids[p] * width;
    float dot = 0;
    for (std::int64_t d = lane * kWidth; d < width; d += kWarp * kWidth) {
      const Pack<T, kWidth> a = load_pack<kWidth>(c, d), b = load_pack<kWidth>(row, d);
      for (int k = 0; k < kWidth; ++k) dot += static_cast<float>(a.values[k]) * static_cast<float>(b.values[k]);
    }
    dot = warp_sum(dot);
    if (lane == 0) gradient[p] = formula(activations[p], norms[ids[p]], dot);
  }
}

/// A warp a feature; 8 bytes a pair, 4 of them scattered.
__global__ void __launch_bounds__(kThreads) sum_pairs(const std::int32_t* offsets, const std::int32_t* pairs,
                                                      const float* values, std::int64_t features, float* sums) {
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kWarps + threadIdx.x / kWarp;
  if (i >= features) return;
  double sum = 0;
  for (std::int32_t k = offsets[i] + static_cast<std::int32_t>(threadIdx.x % kWarp); k < offsets[i + 1]; k += kWarp)
    sum += static_cast<double>(values[pairs[k]]);
  sum = warp_sum(sum);
  if (threadIdx.x % kWarp == 0) sums[i] = static_cast<float>(sum);
}

struct CountPairs {
  const std::int32_t* offsets;
  float* counts;
  template <int kWidth>
  __device__ void run(std::int64_t i) const {
    for (int k = 0; k < kWidth; ++k) counts[i + k] = static_cast<float>(offsets[i + k + 1] - offsets[i + k]);
  }
};

/// Whether rows may be read four numbers at a time.
bool in_packs(const Tensor& activations) {
  return activations.size(1) % 4 == 0 && aligned_to_16(numbers<const float>(activations));
}

constexpr int kScanThreads = 1024;

/// Rows of sums, and what each of them starts from.
struct Rows {
  const float* start;
  std::int64_t start_stride;
  const Tensor& out;
};

/// out_t = start_t + Σ_p a_p · weights_{feature of p}
void add_pairs(Context& context, const char* op, const SparseFeatures& features, const Tensor& weights,
               const Rows& to) {
  const auto run = [&]<class T>(const T* rows) {
    launch_row_sums<T, T>(context, op,
                          {.offsets = numbers<const std::int32_t>(features.offsets),
                           .index = numbers<const std::int32_t>(features.features),
                           .through = nullptr,
                           .factors = numbers<const float>(features.activations),
                           .rows = rows,
                           .start = to.start,
                           .width = to.out.size(1),
                           .count = to.out.size(0),
                           .out = numbers<float>(to.out),
                           .start_stride = to.start_stride});
  };
  if (weights.dtype() == DType::kFloat32) return run(numbers<const float>(weights));
  run(numbers<const bfloat16>(weights));
}

}  // namespace

std::int64_t count_pairs(Context& context, const Tensor& activations, const Tensor& offsets) {
  const std::int64_t tokens = activations.size(0);
  std::int32_t* out = numbers<std::int32_t>(offsets);
  cuda::clear(context, offsets);
  launch(context, "count_pairs", {tokens, kThreads}, in_packs(activations) ? count_row<4> : count_row<1>,
         numbers<const float>(activations), activations.size(1), out);
  launch(context, "count_pairs", {1, kScanThreads}, scan, out, tokens + 1);
  std::int32_t pairs = 0;
  cuda::copy(context, offsets.rows(tokens, tokens + 1), Tensor::of(std::span(&pairs, 1), {1}));
  cuda::synchronize(context);
  return pairs;
}

void gather_pairs(Context& context, const Tensor& activations, const SparseFeatures& out) {
  launch(context, "gather_pairs", {activations.size(0), kThreads},
         in_packs(activations) ? gather_row<4> : gather_row<1>, numbers<const float>(activations), activations.size(1),
         numbers<const std::int32_t>(out.offsets), numbers<std::int32_t>(out.features),
         numbers<float>(out.activations));
}

void sort_by_feature(Context& context, const SparseFeatures& by_token, const FeatureMajorPairs& out) {
  constexpr std::int64_t kFewestTokens = 32;
  constexpr std::int64_t kMostPlaces = std::int64_t{16} << 20;  // 64 MB of scratch
  const std::int64_t tokens = by_token.offsets.size(0) - 1, features = out.offsets.size(0) - 1;
  Tiles tiles{tokens, kFewestTokens, features};
  while (tiles.count() > 1 && tiles.count() * features > kMostPlaces) tiles.each *= 2;
  const Tensor places(context.scratch(0, static_cast<std::size_t>(tiles.count() * features) * sizeof(std::int32_t)),
                      DType::kInt32, {tiles.count() * features}, Device::kCuda);
  const auto* offsets = numbers<const std::int32_t>(by_token.offsets);
  const auto* ids = numbers<const std::int32_t>(by_token.features);
  auto* feature_offsets = numbers<std::int32_t>(out.offsets);
  cuda::clear(context, places);
  cuda::clear(context, out.offsets);
  launch(context, "sort_by_feature", {tiles.count(), kWarp}, count_tile, tiles, offsets, ids,
         numbers<std::int32_t>(places));
  launch(context, "sort_by_feature", {blocks_for(features, kThreads), kThreads}, scan_tiles, tiles,
         numbers<std::int32_t>(places), feature_offsets);
  launch(context, "sort_by_feature", {1, kScanThreads}, scan, feature_offsets, features + 1);
  launch(context, "sort_by_feature", {tiles.count(), kWarp}, place_tile, tiles, offsets, ids,
         numbers<std::int32_t>(places), feature_offsets, numbers<std::int32_t>(out.tokens),
         numbers<std::int32_t>(out.pairs));
}

void sparse_decode(Context& context, const SparseFeatures& features, const Tensor& decoder, const Tensor& bias,
                   const Tensor& output) {
  add_pairs(context, "sparse_decode", features, decoder, {numbers<const float>(bias), 0, output});
}

void sparse_input_gradient(Context& context, const SparseFeatures& features, const Tensor& encoder,
                           const Tensor& gradient) {
  add_pairs(context, "sparse_input_gradient", features, encoder,
            {numbers<const float>(gradient), gradient.size(1), gradient});
}

void sparse_feature_gradient(Context& context, const SparseFeatures& features, const Tensor& decoder,
                             const Tensor& cotangent, const SparsityTerm& sparsity, const Tensor& gradient) {
  const auto run = [&]<class T>(const T* rows) {
    constexpr int kWidth = 16 / static_cast<int>(sizeof(T));
    const std::int64_t width = decoder.size(1);
    const T* c = numbers<const T>(cotangent);
    const bool packs = width % kWidth == 0 && aligned_to_16(rows, c);
    launch(context, "sparse_feature_gradient", {cotangent.size(0), kRowThreads},
           packs ? pair_gradient<T, kWidth> : pair_gradient<T, 1>, numbers<const std::int32_t>(features.offsets),
           numbers<const std::int32_t>(features.features), numbers<const float>(features.activations), rows, c,
           numbers<const float>(sparsity.norms), FeatureGradient{sparsity.coefficient}, width,
           numbers<float>(gradient));
  };
  if (decoder.dtype() == DType::kFloat32) return run(numbers<const float>(decoder));
  run(numbers<const bfloat16>(decoder));
}

void sparse_weight_gradient(Context& context, const FeatureMajorPairs& by_feature, const Tensor& left,
                            const Tensor& right, DType compute, const Tensor& gradient) {
  const auto run = [&]<class T>(const T* rows) {
    RowSum<T> sum{.offsets = numbers<const std::int32_t>(by_feature.offsets),
                  .index = numbers<const std::int32_t>(by_feature.tokens),
                  .through = numbers<const std::int32_t>(by_feature.pairs),
                  .factors = numbers<const float>(left),
                  .rows = rows,
                  .start = nullptr,
                  .width = gradient.size(1),
                  .count = gradient.size(0),
                  .out = numbers<float>(gradient),
                  .stretch = kStretch};
    const auto part_bytes = [&] { return left.size(0) / sum.stretch * sum.width * std::int64_t{sizeof(float)}; };
    while (part_bytes() > kMostPartBytes) sum.stretch *= 2;
    sum.slots = left.size(0) / sum.stretch;
    sum.parts = static_cast<float*>(context.scratch(0, static_cast<std::size_t>(part_bytes())));
    if (compute == DType::kFloat32)
      launch_row_sums<T, float>(context, "sparse_weight_gradient", sum);
    else
      launch_row_sums<T, bfloat16>(context, "sparse_weight_gradient", sum);
  };
  if (right.dtype() == DType::kFloat32) return run(numbers<const float>(right));
  run(numbers<const bfloat16>(right));
}

void pair_sums(Context& context, const FeatureMajorPairs& by_feature, const Tensor& values, const Tensor& sums) {
  launch(context, "pair_sums", {blocks_for(sums.size(0), kWarps), kThreads}, sum_pairs,
         numbers<const std::int32_t>(by_feature.offsets), numbers<const std::int32_t>(by_feature.pairs),
         numbers<const float>(values), sums.size(0), numbers<float>(sums));
}

void pair_counts(Context& context, const FeatureMajorPairs& by_feature, const Tensor& counts) {
  elementwise<1>(context, "pair_counts", counts.size(0), true,
                 CountPairs{numbers<const std::int32_t>(by_feature.offsets), numbers<float>(counts)});
}

}  // namespace tadapt::cuda

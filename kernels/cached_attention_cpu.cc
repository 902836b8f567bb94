#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/cached_attention.h"
#include "kernels/core/exponential.h"
#include "kernels/core/join_in_halves.h"
#include "kernels/core/launch.h"
#include "kernels/core/vectorise.h"

namespace tadapt::cpu {
namespace {
constexpr float kInfinity = std::numeric_limits<float>::infinity();

/// Where one page's keys and values of one group lie, as float32.
struct Tile {
  const float* keys;    ///< [h, kPageTokens]
  const float* values;  ///< [kPageTokens, h]
};

/// One query of one head: its result so far, and its softmax so far, relative to e^maximum.
struct Query {
  const float* query;
  float* result;
  float maximum = -kInfinity;
  float sum = 0;
};

/// Takes the first `visible` tokens of a tile into a query. Order of operations: attention_cpu.cc's.
TADAPT_VECTORISED void attend(Query& query, const Tile& tile, std::int64_t visible, float scale, std::int64_t size) {
  float weights[kPageTokens] = {};
  for (std::int64_t d = 0; d < size; ++d) {
    const float number = query.query[d];
#pragma omp simd
    for (std::int64_t j = 0; j < kPageTokens; ++j)
      weights[j] = std::fma(number, tile.keys[d * kPageTokens + j], weights[j]);
  }
  for (std::int64_t j = 0; j < kPageTokens; ++j) weights[j] = j < visible ? weights[j] * scale : -kInfinity;
  const float largest = join_in_halves<kPageTokens>(weights, [](float a, float b) { return a > b ? a : b; });
  const float maximum = largest > query.maximum ? largest : query.maximum;
  for (std::int64_t j = 0; j < kPageTokens; ++j) weights[j] = exponential(weights[j] - maximum);
  const float correction = exponential(query.maximum - maximum);
  query.sum = query.sum * correction + join_in_halves<kPageTokens>(weights, [](float a, float b) { return a + b; });
  query.maximum = maximum;
  for (std::int64_t d = 0; d < size; ++d) query.result[d] *= correction;
  for (std::int64_t j = 0; j < visible; ++j) {
    const float weight = weights[j];
    const float* value = tile.values + j * size;
#pragma omp simd
    for (std::int64_t d = 0; d < size; ++d) query.result[d] = std::fma(weight, value[d], query.result[d]);
  }
}

struct Sizes {
  std::int64_t heads, groups, size;
  std::int64_t group() const { return heads / groups; }
  std::int64_t tile() const { return size * kPageTokens; }
};

/// The tile of page `page` and group `g`, widened into `room` (two tiles) where the cache is bfloat16.
Tile load_tile(const CachePages& pages, const Sizes& sizes, std::int64_t page, std::int64_t g, float* room) {
  const std::int64_t at = (page * sizes.groups + g) * sizes.tile();
  if (pages.keys.dtype() == DType::kFloat32)
    return {pages.keys.span<float>().data() + at, pages.values.span<float>().data() + at};
  const bfloat16* keys = pages.keys.span<bfloat16>().data() + at;
  const bfloat16* values = pages.values.span<bfloat16>().data() + at;
  for (std::int64_t i = 0; i < sizes.tile(); ++i) {
    room[i] = static_cast<float>(keys[i]);
    room[sizes.tile() + i] = static_cast<float>(values[i]);
  }
  return {room, room + sizes.tile()};
}

void require_in(std::int64_t number, std::int64_t end, const char* what) {
  require_shape(0 <= number && number < end, "cached attention: {} {} of {}", what, number, end);
}

/// A group of heads of one row.
struct RowGroup {
  std::int64_t r, g;
};

void attend_row(const CachedQueries& input, const CachePages& pages, const Sizes& sizes, RowGroup where, float* room,
                float* out) {
  const auto [r, g] = where;
  const std::int64_t columns = input.tables.size(1);
  const std::int64_t position = input.positions.span<std::int32_t>()[static_cast<std::size_t>(r)];
  require_in(position, columns * kPageTokens, "position");
  const std::int32_t* table = input.tables.span<std::int32_t>().data() + r * columns;
  const float scale = 1.0f / std::sqrt(static_cast<float>(sizes.size));
  std::vector<Query> queries;
  for (std::int64_t n = g * sizes.group(); n < (g + 1) * sizes.group(); ++n) {
    const std::int64_t at = (r * sizes.heads + n) * sizes.size;
    queries.push_back({.query = input.query.span<float>().data() + at, .result = out + at});
    std::fill_n(out + at, sizes.size, 0.0f);
  }
  for (std::int64_t first = 0; first <= position; first += kPageTokens) {
    const std::int64_t page = table[first / kPageTokens];
    require_in(page, pages.keys.size(0), "page");
    const Tile tile = load_tile(pages, sizes, page, g, room);
    for (Query& query : queries) attend(query, tile, std::min(kPageTokens, position - first + 1), scale, sizes.size);
  }
  for (const Query& query : queries)
    for (std::int64_t d = 0; d < sizes.size; ++d) query.result[d] /= query.sum;
}

template <class T>
void store(Context& context, const Tensor& key, const Tensor& value, const Tensor& slots, const CachePages& pages) {
  const std::int64_t groups = key.size(1), size = key.size(2);
  const std::span<const std::int32_t> at = slots.span<std::int32_t>();
  const float *from_key = key.span<float>().data(), *from_value = value.span<float>().data();
  T *keys = pages.keys.span<T>().data(), *values = pages.values.span<T>().data();
  parallel_blocks(context, key.size(0), rows_per_block(groups * size), [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t t = begin; t < end; ++t) {
      const std::int64_t slot = at[static_cast<std::size_t>(t)];
      require_in(slot, pages.keys.size(0) * kPageTokens, "slot");
      const std::int64_t place = slot % kPageTokens;
      for (std::int64_t g = 0; g < groups; ++g) {
        const std::int64_t tile = (slot / kPageTokens * groups + g) * size * kPageTokens;
        const std::int64_t row = (t * groups + g) * size;
        for (std::int64_t d = 0; d < size; ++d) {
          keys[tile + d * kPageTokens + place] = static_cast<T>(from_key[row + d]);
          values[tile + place * size + d] = static_cast<T>(from_value[row + d]);
        }
      }
    }
  });
}
}  // namespace

void store_in_cache(Context& context, const Tensor& key, const Tensor& value, const Tensor& slots,
                    const CachePages& pages) {
  if (pages.keys.dtype() == DType::kFloat32) return store<float>(context, key, value, slots, pages);
  store<bfloat16>(context, key, value, slots, pages);
}

void cached_attention(Context& context, const CachedQueries& input, const CachePages& pages, const Tensor& out) {
  const Sizes sizes{input.query.size(1), pages.keys.size(1), input.query.size(2)};
  float* result = out.span<float>().data();
  parallel_for(context, input.query.size(0) * sizes.groups, [&](std::int64_t job, int thread) {
    float* room = context.scratch_of<float>(thread, static_cast<std::size_t>(2 * sizes.tile())).data();
    attend_row(input, pages, sizes, {.r = job / sizes.groups, .g = job % sizes.groups}, room, result);
  });
}

}  // namespace tadapt::cpu

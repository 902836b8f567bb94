#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/attention.h"
#include "kernels/core/exponential.h"
#include "kernels/core/launch.h"
#include "kernels/core/vectorise.h"

namespace tadapt::cpu {
namespace {
/// Keys looked at together; tiles start at multiples of it from the sequence's first token.
constexpr std::int64_t kKeys = 64;
/// Query rows (positions × heads of one group) that share a packed tile of keys, about.
constexpr std::int64_t kRows = 64;
constexpr float kInfinity = std::numeric_limits<float>::infinity();

/// y_n += Σ_c coefficients_c · rows_c,n, c in order, each step a fused multiply-add.
TADAPT_INLINE void accumulate(const float* coefficients, const float* rows, std::int64_t row_stride, std::int64_t count,
                              std::int64_t n, float* y) {
  std::int64_t c = 0;
  for (; c + 8 <= count; c += 8) {
    const float* a = coefficients + c;
    const float* x = rows + c * row_stride;
    const float *x1 = x + row_stride, *x2 = x1 + row_stride, *x3 = x2 + row_stride, *x4 = x3 + row_stride,
                *x5 = x4 + row_stride, *x6 = x5 + row_stride, *x7 = x6 + row_stride;
#pragma omp simd
    for (std::int64_t i = 0; i < n; ++i) {
      float sum = std::fma(a[0], x[i], y[i]);
      sum = std::fma(a[1], x1[i], sum);
      sum = std::fma(a[2], x2[i], sum);
      sum = std::fma(a[3], x3[i], sum);
      sum = std::fma(a[4], x4[i], sum);
      sum = std::fma(a[5], x5[i], sum);
      sum = std::fma(a[6], x6[i], sum);
      y[i] = std::fma(a[7], x7[i], sum);
    }
  }
  for (; c < count; ++c) {
    const float* x = rows + c * row_stride;
#pragma omp simd
    for (std::int64_t i = 0; i < n; ++i) y[i] = std::fma(coefficients[c], x[i], y[i]);
  }
}

/// A query's softmax so far: weights are relative to e^maximum.
struct RowState {
  float maximum = -kInfinity;
  float sum = 0;
};

struct KeyTile {
  const float* keys;    ///< [h, kKeys], zero past the sequence's end
  const float* values;  ///< first row; `value_stride` apart
  std::int64_t value_stride;
  std::int64_t head_size;
  float scale;
};

/// All kKeys numbers joined in halves.
template <class Operation>
TADAPT_INLINE float join(const float* numbers, Operation operation) {
  float partial[kKeys / 2];
  for (std::int64_t j = 0; j < kKeys / 2; ++j) partial[j] = operation(numbers[j], numbers[j + kKeys / 2]);
  for (std::int64_t width = kKeys / 4; width > 0; width /= 2) {
    for (std::int64_t j = 0; j < width; ++j) partial[j] = operation(partial[j], partial[j + width]);
  }
  return partial[0];
}

/// Takes the tile's first `visible` keys into one query's result.
TADAPT_VECTORISED void attend(const KeyTile& tile, const float* query, std::int64_t visible, RowState& state,
                              float* result) {
  float weights[kKeys] = {};
  accumulate(query, tile.keys, kKeys, tile.head_size, kKeys, weights);
  for (std::int64_t j = 0; j < kKeys; ++j) weights[j] = j < visible ? weights[j] * tile.scale : -kInfinity;
  const float largest = join(weights, [](float a, float b) { return a > b ? a : b; });
  const float maximum = largest > state.maximum ? largest : state.maximum;
  for (std::int64_t j = 0; j < kKeys; ++j) weights[j] = exponential(weights[j] - maximum);
  const float sum = join(weights, [](float a, float b) { return a + b; });
  const float correction = exponential(state.maximum - maximum);
  state.sum = state.sum * correction + sum;
  state.maximum = maximum;
  for (std::int64_t d = 0; d < tile.head_size; ++d) result[d] *= correction;
  accumulate(weights, tile.values, tile.value_stride, visible, tile.head_size, result);
}

TADAPT_VECTORISED void divide(float* result, float sum, std::int64_t n) {
  for (std::int64_t d = 0; d < n; ++d) result[d] /= sum;
}

/// keys[d][j] = key j's element d
void transpose_keys(const float* key, std::int64_t stride, std::int64_t count, std::int64_t head_size, float* keys) {
  std::fill(keys, keys + head_size * kKeys, 0.0f);
  for (std::int64_t j = 0; j < count; ++j) {
    for (std::int64_t d = 0; d < head_size; ++d) keys[d * kKeys + j] = key[j * stride + d];
  }
}

/// The query positions [begin, end) of the sequence that starts at row `start` and ends before `stop`.
struct QueryBlock {
  std::int64_t start, stop, begin, end;
};

std::vector<QueryBlock> query_blocks(const Tensor& offsets, std::int64_t tokens, std::int64_t positions) {
  const std::span<const std::int32_t> at = offsets.span<std::int32_t>();
  require_shape(at.front() == 0 && at.back() == tokens,
                "causal_attention: offsets run from {} to {}, tokens from 0 to {}", at.front(), at.back(), tokens);
  std::vector<QueryBlock> blocks;
  for (std::size_t b = 0; b + 1 < at.size(); ++b) {
    require_shape(at[b] <= at[b + 1], "causal_attention: offset {} is {}, the next {}", b, at[b], at[b + 1]);
    for (std::int64_t begin = at[b]; begin < at[b + 1]; begin += positions) {
      blocks.push_back({at[b], at[b + 1], begin, std::min<std::int64_t>(begin + positions, at[b + 1])});
    }
  }
  return blocks;
}

struct Heads {
  std::int64_t queries, groups, size;
  std::int64_t group() const { return queries / groups; }
};

/// All heads of group `g` for one block of queries.
void attend_block(const AttentionInput& input, const Heads& heads, const QueryBlock& block, std::int64_t g,
                  std::span<float> keys, float* out) {
  const std::int64_t group = heads.group(), stride = heads.groups * heads.size;
  const float* query = input.query.span<float>().data();
  const float* key = input.key.span<float>().data() + g * heads.size;
  const float* value = input.value.span<float>().data() + g * heads.size;
  const auto row_of = [&](std::int64_t t, std::int64_t n) { return (t * heads.queries + g * group + n) * heads.size; };
  std::vector<RowState> states(static_cast<std::size_t>((block.end - block.begin) * group));
  for (std::int64_t t = block.begin; t < block.end; ++t) {
    std::fill_n(out + row_of(t, 0), group * heads.size, 0.0f);
  }
  for (std::int64_t first = block.start; first < block.end; first += kKeys) {
    transpose_keys(key + first * stride, stride, std::min(kKeys, block.stop - first), heads.size, keys.data());
    const KeyTile tile{keys.data(), value + first * stride, stride, heads.size,
                       1.0f / std::sqrt(static_cast<float>(heads.size))};
    for (std::int64_t t = std::max(block.begin, first); t < block.end; ++t) {
      for (std::int64_t n = 0; n < group; ++n) {
        attend(tile, query + row_of(t, n), std::min(kKeys, t - first + 1),
               states[static_cast<std::size_t>((t - block.begin) * group + n)], out + row_of(t, n));
      }
    }
  }
  for (std::int64_t t = block.begin; t < block.end; ++t) {
    for (std::int64_t n = 0; n < group; ++n) {
      divide(out + row_of(t, n), states[static_cast<std::size_t>((t - block.begin) * group + n)].sum, heads.size);
    }
  }
}
}  // namespace

void causal_attention(Context& context, const AttentionInput& input, const Tensor& out) {
  const Heads heads{input.query.size(1), input.key.size(1), input.query.size(2)};
  if (out.elements() == 0) return;
  const std::int64_t positions = std::max<std::int64_t>(1, kRows / heads.group());
  const std::vector<QueryBlock> blocks = query_blocks(input.offsets, input.query.size(0), positions);
  const auto count = static_cast<std::int64_t>(blocks.size()) * heads.groups;
  float* result = out.span<float>().data();
  parallel_for(context, count, [&](std::int64_t job, int thread) {
    // The last blocks of a sequence cost most: first.
    const std::int64_t index = count - 1 - job;
    const std::span<float> keys = context.scratch_of<float>(thread, static_cast<std::size_t>(heads.size * kKeys));
    attend_block(input, heads, blocks[static_cast<std::size_t>(index / heads.groups)], index % heads.groups, keys,
                 result);
  });
}

}  // namespace tadapt::cpu

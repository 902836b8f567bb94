#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/attention.h"
#include "kernels/attention_rows.h"
#include "kernels/core/exponential.h"
#include "kernels/core/join_in_halves.h"
#include "kernels/core/launch.h"
#include "kernels/core/vectorise.h"

namespace tadapt::cpu {
namespace {
constexpr float kInfinity = std::numeric_limits<float>::infinity();

/// One query of one head: where it lies, and its softmax so far, relative to e^maximum.
struct Query {
  std::int64_t position;  ///< row of [T, …]
  const float* query;
  float* result;
  float* log_sum;  ///< or none
  float maximum = -kInfinity;
  float sum = 0;
};

/// Scores of a tile's keys become weights, 0 from `visible` on; what the query has so far is scaled to match.
TADAPT_VECTORISED void take_weights(Query& query, float* scores, std::int64_t visible, float scale,
                                    std::int64_t head_size) {
  for (std::int64_t j = 0; j < kKeys; ++j) scores[j] = j < visible ? scores[j] * scale : -kInfinity;
  const float largest = join_in_halves<kKeys>(scores, [](float a, float b) { return a > b ? a : b; });
  const float maximum = largest > query.maximum ? largest : query.maximum;
  for (std::int64_t j = 0; j < kKeys; ++j) scores[j] = exponential(scores[j] - maximum);
  const float correction = exponential(query.maximum - maximum);
  query.sum = query.sum * correction + join_in_halves<kKeys>(scores, [](float a, float b) { return a + b; });
  query.maximum = maximum;
  for (std::int64_t d = 0; d < head_size; ++d) query.result[d] *= correction;
}

TADAPT_VECTORISED void divide(float* result, float sum, std::int64_t n) {
  for (std::int64_t d = 0; d < n; ++d) result[d] /= sum;
}

/// What one worker holds: a tile of keys and values and every query's scores of it.
struct Workspace {
  Workspace(Context& context, int thread, std::int64_t head_size, std::int64_t rows) {
    const auto tile = static_cast<std::size_t>(head_size * kKeys);
    const std::span<float> all = context.scratch_of<float>(thread, 2 * tile + static_cast<std::size_t>(rows * kKeys));
    keys = all.data();
    values = keys + tile;
    scores = values + tile;
  }
  float* keys;    ///< [h, kKeys], zero past the sequence's end
  float* values;  ///< [kKeys, h]
  float* scores;  ///< [rows, kKeys]
};

void load_tile(const float* key, const float* value, std::int64_t stride, std::int64_t count, std::int64_t head_size,
               const Workspace& work) {
  if (count < kKeys) std::fill(work.keys, work.keys + head_size * kKeys, 0.0f);
  for (std::int64_t d = 0; d < head_size; ++d) {
    for (std::int64_t j = 0; j < count; ++j) work.keys[d * kKeys + j] = key[j * stride + d];
  }
  for (std::int64_t j = 0; j < count; ++j) std::copy_n(value + j * stride, head_size, work.values + j * head_size);
}

/// Takes the tile that starts at row `first` into every query at or after it; queries are in order of position.
void attend_tile(std::span<Query> queries, std::int64_t first, std::int64_t head_size, const Workspace& work) {
  const float scale = 1.0f / std::sqrt(static_cast<float>(head_size));
  const auto scores = [&](std::size_t i) { return work.scores + static_cast<std::int64_t>(i) * kKeys; };
  const auto visible = [&](std::size_t i) { return std::min(kKeys, queries[i].position - first + 1); };
  std::fill_n(work.scores, static_cast<std::int64_t>(queries.size()) * kKeys, 0.0f);
  const auto score = [&](std::size_t i) { return Sum{queries[i].query, scores(i)}; };
  const auto result = [&](std::size_t i) { return Sum{scores(i), queries[i].result}; };
  const std::size_t fours = queries.size() / 4 * 4;
  for (std::size_t i = 0; i < fours; i += 4) {
    accumulate_four({score(i), score(i + 1), score(i + 2), score(i + 3)}, work.keys, head_size, kKeys);
  }
  for (std::size_t i = fours; i < queries.size(); ++i) accumulate_one(score(i), work.keys, head_size, kKeys);
  for (std::size_t i = 0; i < queries.size(); ++i) take_weights(queries[i], scores(i), visible(i), scale, head_size);
  for (std::size_t i = 0; i < queries.size();) {
    if (i < fours && i % 4 == 0 && visible(i) == visible(i + 3)) {
      accumulate_four({result(i), result(i + 1), result(i + 2), result(i + 3)}, work.values, visible(i), head_size);
      i += 4;
    } else {
      accumulate_one(result(i), work.values, visible(i), head_size);
      ++i;
    }
  }
}

/// The query positions [begin, end) of the sequence that starts at row `start` and ends before `stop`.
struct QueryBlock {
  std::int64_t start, stop, begin, end;
};

std::vector<QueryBlock> query_blocks(const Tensor& offsets, std::int64_t tokens, std::int64_t positions) {
  const std::span<const std::int32_t> at = offsets.span<std::int32_t>();
  require_sequences(at, tokens);
  std::vector<QueryBlock> blocks;
  for (std::size_t b = 0; b + 1 < at.size(); ++b) {
    for (std::int64_t begin = at[b]; begin < at[b + 1]; begin += positions) {
      blocks.push_back({at[b], at[b + 1], begin, std::min<std::int64_t>(begin + positions, at[b + 1])});
    }
  }
  return blocks;
}

struct Results {
  float* out;
  float* log_sums;  ///< or none
};

/// All heads of group `g` for one block of queries.
void attend_block(const AttentionInput& input, const Heads& heads, const QueryBlock& block, std::int64_t g,
                  const Workspace& work, const Results& results) {
  const float* query = input.query.span<float>().data();
  const float* key = input.key.span<float>().data() + g * heads.size;
  const float* value = input.value.span<float>().data() + g * heads.size;
  std::vector<Query> queries;
  for (std::int64_t t = block.begin; t < block.end; ++t) {
    for (std::int64_t n = g * heads.group(); n < (g + 1) * heads.group(); ++n) {
      const std::int64_t row = t * heads.queries + n;
      float* out = results.out + row * heads.size;
      float* log_sum = results.log_sums == nullptr ? nullptr : results.log_sums + row;
      queries.push_back({.position = t, .query = query + row * heads.size, .result = out, .log_sum = log_sum});
      std::fill_n(out, heads.size, 0.0f);
    }
  }
  const std::int64_t stride = heads.groups * heads.size;
  for (std::int64_t first = block.start; first < block.end; first += kKeys) {
    load_tile(key + first * stride, value + first * stride, stride, std::min(kKeys, block.stop - first), heads.size,
              work);
    const std::int64_t before = std::max<std::int64_t>(0, first - block.begin) * heads.group();
    attend_tile(std::span(queries).subspan(static_cast<std::size_t>(before)), first, heads.size, work);
  }
  for (const Query& done : queries) {
    divide(done.result, done.sum, heads.size);
    if (done.log_sum != nullptr) *done.log_sum = done.maximum + std::log(done.sum);
  }
}
}  // namespace

void causal_attention(Context& context, const AttentionInput& input, const Tensor& out, const Tensor& log_sums) {
  const Heads heads{input.query.size(1), input.key.size(1), input.query.size(2)};
  const std::int64_t positions = heads.positions();
  const std::vector<QueryBlock> blocks = query_blocks(input.offsets, input.query.size(0), positions);
  if (out.elements() == 0) return;
  const auto count = static_cast<std::int64_t>(blocks.size()) * heads.groups;
  const Results results{out.span<float>().data(), log_sums.empty() ? nullptr : log_sums.span<float>().data()};
  parallel_for(context, count, [&](std::int64_t job, int thread) {
    // The last blocks of a sequence cost most: first.
    const std::int64_t index = count - 1 - job;
    const Workspace work(context, thread, heads.size, positions * heads.group());
    attend_block(input, heads, blocks[static_cast<std::size_t>(index / heads.groups)], index % heads.groups, work,
                 results);
  });
}

}  // namespace tadapt::cpu

#include <algorithm>
#include <atomic>
#include <cmath>
#include <functional>
#include <numeric>
#include <utility>
#include <vector>

#include "kernels/attention_backward.h"
#include "kernels/attention_rows.h"
#include "kernels/core/exponential.h"
#include "kernels/core/launch.h"
#include "kernels/core/vectorise.h"

namespace tadapt::cpu {
namespace {

/// Numbers of one group of heads: row (t, n) lies at t · stride + n · size from the group's first.
template <class T>
struct GroupRows {
  T* first = nullptr;
  std::int64_t stride = 0;
  T* at(std::int64_t t) const { return first + t * stride; }
};
template <class T>
GroupRows<T> group_rows(const Tensor& tensor, const Heads& heads, std::int64_t g) {
  if (tensor.empty()) return {};
  const std::int64_t stride = tensor.size(1) * heads.size;
  return {tensor.span<float>().data() + g * (stride / heads.groups), stride};
}

/// How far the query gradients of one tile of keys have come: tiles add to them in turn, from the first on.
class Progress {
 public:
  void reach(std::int32_t position) {
    done_.store(position, std::memory_order_release);
    done_.notify_all();
  }
  void wait_for(std::int64_t position) const {
    for (std::int32_t done = 0; (done = done_.load(std::memory_order_acquire)) < position;) done_.wait(done);
  }

 private:
  std::atomic<std::int32_t> done_{0};
};

/// Up to kKeys keys of one group of one sequence, whose tokens are rows [start, stop).
struct KeyTile {
  std::int64_t start, stop, group, index;
  Progress* progress;  ///< the tile before has the one before
  std::int64_t first() const { return start + index * kKeys; }
};

/// One group.
struct Job {
  Job(const AttentionInput& input, const AttentionResult& result, const Tensor& row_deltas, const Heads& heads,
      std::int64_t g)
      : query(group_rows<const float>(input.query, heads, g)),
        key(group_rows<const float>(input.key, heads, g)),
        value(group_rows<const float>(input.value, heads, g)),
        out(group_rows<const float>(result.out, heads, g)),
        cotangent(group_rows<const float>(result.cotangent, heads, g)),
        log_sums{result.log_sums.span<float>().data() + g * heads.group(), heads.queries},
        deltas{row_deltas.span<float>().data() + g * heads.group(), heads.queries} {}
  GroupRows<const float> query, key, value, out, cotangent, log_sums, deltas;
};

/// Query rows of the group at positions [begin, end), packed one after another.
struct QueryRows {
  std::int64_t begin, end, heads;
  std::int64_t count() const { return (end - begin) * heads; }
  std::int64_t position(std::int64_t row) const { return begin + row / heads; }
  /// The first row that sees position s.
  std::int64_t first_to_see(std::int64_t s) const { return s <= begin ? 0 : (s - begin) * heads; }
};

/// What one worker holds: a tile of keys and values with their gradients, and query rows with their scores of it.
struct Workspace {
  Workspace(Context& context, int thread, const Heads& heads) {
    const std::int64_t rows = heads.positions() * heads.group(), tile = heads.size * kKeys;
    const std::int64_t floats = 5 * tile + 2 * rows * heads.size + 4 * rows * kKeys;
    float* next = context.scratch_of<float>(thread, static_cast<std::size_t>(floats)).data();
    for (float** part : {&keys, &keys_across, &values_across, &key_gradient, &value_gradient})
      *part = std::exchange(next, next + tile);
    for (float** part : {&queries, &cotangents}) *part = std::exchange(next, next + rows * heads.size);
    for (float** part : {&weights, &slopes, &weights_across, &slopes_across})
      *part = std::exchange(next, next + rows * kKeys);
  }
  float *keys, *key_gradient, *value_gradient;  ///< [kKeys, h], zero past the sequence's end
  float *keys_across, *values_across;           ///< [h, kKeys], zero past the sequence's end
  float *queries, *cotangents;                  ///< [rows, h]
  float *weights, *slopes;                      ///< [rows, kKeys]
  float *weights_across, *slopes_across;        ///< [kKeys, rows]
};

TADAPT_VECTORISED float delta_of(const float* out, const float* cotangent, std::int64_t n) {
  return static_cast<float>(ordered_sum(n, [&](std::int64_t i) { return static_cast<double>(out[i]) * cotangent[i]; }));
}

/// Products of a row with keys become weights, 0 from `visible` on.
TADAPT_VECTORISED void weigh(float* scores, std::int64_t visible, float log_sum, float scale) {
  for (std::int64_t j = 0; j < kKeys; ++j) {
    const float weight = exponential(scores[j] * scale - log_sum);
    scores[j] = j < visible ? weight : 0.0f;
  }
}
/// Products of a row's cotangent with values become gradients of scores.
TADAPT_VECTORISED void take_slopes(const float* weights, std::int64_t visible, float delta, float scale,
                                   float* products) {
  for (std::int64_t j = 0; j < kKeys; ++j) {
    const float slope = AttentionSlope{weights[j], delta, scale}(products[j]);
    products[j] = j < visible ? slope : 0.0f;
  }
}

TADAPT_VECTORISED void transpose(const float* from, std::int64_t stride, std::int64_t rows, std::int64_t columns,
                                 float* to, std::int64_t to_stride) {
  constexpr std::int64_t kBlock = 16;
  std::int64_t r = 0;
  for (; r + kBlock <= rows; r += kBlock) {
    for (std::int64_t c = 0; c < columns; ++c) {
      for (std::int64_t k = 0; k < kBlock; ++k) to[c * to_stride + r + k] = from[(r + k) * stride + c];
    }
  }
  for (; r < rows; ++r) {
    for (std::int64_t c = 0; c < columns; ++c) to[c * to_stride + r] = from[r * stride + c];
  }
}

/// [rows, kKeys] products of `left` [rows, h] with a tile that lies across.
void multiply(const float* left, std::int64_t rows, const float* tile, std::int64_t head_size, float* products) {
  std::fill_n(products, rows * kKeys, 0.0f);
  const auto sum = [&](std::int64_t i) { return Sum{left + i * head_size, products + i * kKeys}; };
  std::int64_t i = 0;
  for (; i + 4 <= rows; i += 4) accumulate_four({sum(i), sum(i + 1), sum(i + 2), sum(i + 3)}, tile, head_size, kKeys);
  for (; i < rows; ++i) accumulate_one(sum(i), tile, head_size, kKeys);
}

/// gradient_j += Σ_i coefficients_{j,i} · rows_i for all keys of the tile, rows from the first that sees the key on. A
/// coefficient of 0 changes nothing, so four keys start together.
void add_to_keys(const QueryRows& rows, std::int64_t first, const float* coefficients, const float* packed,
                 std::int64_t head_size, float* gradient) {
  const std::int64_t count = rows.count();
  for (std::int64_t j = 0; j < kKeys && first + j < rows.end; j += 4) {
    const std::int64_t skip = rows.first_to_see(first + j);
    const auto sum = [&](std::int64_t k) { return Sum{coefficients + k * count + skip, gradient + k * head_size}; };
    accumulate_four({sum(j), sum(j + 1), sum(j + 2), sum(j + 3)}, packed + skip * head_size, count - skip, head_size);
  }
}

class Backward {
 public:
  Backward(const Heads& heads, Linearisation linearisation, const AttentionGradient& gradient)
      : heads_(heads), exact_(linearisation == Linearisation::kExact), gradient_(gradient) {}

  /// Tiles take turns at a query's gradient, so it sums keys in order; queries ascend within a tile, so a key's sums
  /// positions and heads in order.
  void run(const Job& job, const KeyTile& tile, const Workspace& work) const {
    const std::int64_t first = tile.first();
    load_tile(job, first, tile.stop, work);
    for (std::int64_t begin = first; begin < tile.stop; begin += heads_.positions()) {
      const QueryRows rows{begin, std::min(begin + heads_.positions(), tile.stop), heads_.group()};
      take_rows(job, rows, first, work);
      if (!exact_) continue;
      if (tile.index > 0) (tile.progress - 1)->wait_for(rows.end);
      add_to_queries(rows, first, tile.group, work);
      tile.progress->reach(static_cast<std::int32_t>(rows.end));
    }
    store_tile(first, std::min(kKeys, tile.stop - first), tile.group, work);
  }

 private:
  void load_tile(const Job& job, std::int64_t first, std::int64_t stop, const Workspace& work) const {
    const std::int64_t count = std::min(kKeys, stop - first), h = heads_.size;
    if (count < kKeys) {
      for (float* part : {work.keys, work.keys_across, work.values_across}) std::fill_n(part, h * kKeys, 0.0f);
    }
    transpose(job.key.at(first), job.key.stride, count, h, work.keys_across, kKeys);
    transpose(job.value.at(first), job.value.stride, count, h, work.values_across, kKeys);
    for (std::int64_t j = 0; j < count; ++j) std::copy_n(job.key.at(first + j), h, work.keys + j * h);
    for (float* part : {work.key_gradient, work.value_gradient}) std::fill_n(part, h * kKeys, 0.0f);
  }

  /// What these queries give the tile that starts at position `first`, and the slopes they get of it.
  void take_rows(const Job& job, const QueryRows& rows, std::int64_t first, const Workspace& work) const {
    const std::int64_t count = rows.count(), h = heads_.size;
    const float scale = 1.0f / std::sqrt(static_cast<float>(h));
    const auto visible = [&](std::int64_t i) { return std::min(kKeys, rows.position(i) - first + 1); };
    for (std::int64_t t = rows.begin; t < rows.end; ++t) {
      const std::int64_t at = (t - rows.begin) * rows.heads * h;
      std::copy_n(job.query.at(t), rows.heads * h, work.queries + at);
      std::copy_n(job.cotangent.at(t), rows.heads * h, work.cotangents + at);
    }
    multiply(work.queries, count, work.keys_across, h, work.weights);
    for (std::int64_t i = 0; i < count; ++i)
      weigh(work.weights + i * kKeys, visible(i), job.log_sums.at(rows.position(i))[i % rows.heads], scale);
    transpose(work.weights, kKeys, count, kKeys, work.weights_across, count);
    add_to_keys(rows, first, work.weights_across, work.cotangents, h, work.value_gradient);
    if (!exact_) return;
    multiply(work.cotangents, count, work.values_across, h, work.slopes);
    for (std::int64_t i = 0; i < count; ++i)
      take_slopes(work.weights + i * kKeys, visible(i), job.deltas.at(rows.position(i))[i % rows.heads], scale,
                  work.slopes + i * kKeys);
    transpose(work.slopes, kKeys, count, kKeys, work.slopes_across, count);
    add_to_keys(rows, first, work.slopes_across, work.queries, h, work.key_gradient);
  }

  /// query gradient_i += Σ_j slopes_{i,j} · key_j; four rows see as many keys as the last of them.
  void add_to_queries(const QueryRows& rows, std::int64_t first, std::int64_t g, const Workspace& work) const {
    const GroupRows<float> to = group_rows<float>(gradient_.query, heads_, g);
    const auto sum = [&](std::int64_t i) {
      return Sum{work.slopes + i * kKeys, to.at(rows.position(i)) + i % rows.heads * heads_.size};
    };
    const auto visible = [&](std::int64_t i) { return std::min(kKeys, rows.position(i) - first + 1); };
    std::int64_t i = 0;
    for (; i + 4 <= rows.count(); i += 4)
      accumulate_four({sum(i), sum(i + 1), sum(i + 2), sum(i + 3)}, work.keys, visible(i + 3), heads_.size);
    for (; i < rows.count(); ++i) accumulate_one(sum(i), work.keys, visible(i), heads_.size);
  }

  void store_tile(std::int64_t first, std::int64_t count, std::int64_t g, const Workspace& work) const {
    const auto store = [&](const float* tile, const Tensor& tensor) {
      const GroupRows<float> to = group_rows<float>(tensor, heads_, g);
      for (std::int64_t j = 0; j < count; ++j) std::copy_n(tile + j * heads_.size, heads_.size, to.at(first + j));
    };
    store(work.value_gradient, gradient_.value);
    if (exact_) store(work.key_gradient, gradient_.key);
  }

  Heads heads_;
  bool exact_;
  AttentionGradient gradient_;
};

/// Every tile of every sequence and group, those before it in its sequence before it, otherwise the most costly first.
std::vector<KeyTile> key_tiles(std::span<const std::int32_t> at, std::int64_t groups, std::vector<Progress>& progress) {
  std::vector<KeyTile> tiles;
  for (std::size_t b = 0; b + 1 < at.size(); ++b) {
    const std::int64_t count = (at[b + 1] - at[b] + kKeys - 1) / kKeys;
    for (std::int64_t g = 0; g < groups; ++g) {
      for (std::int64_t index = 0; index < count; ++index)
        tiles.push_back({.start = at[b], .stop = at[b + 1], .group = g, .index = index, .progress = nullptr});
    }
  }
  progress = std::vector<Progress>(tiles.size());
  for (std::size_t i = 0; i < tiles.size(); ++i) tiles[i].progress = &progress[i];
  // Long ones first; of equal ones the earlier, whose place their progress tells.
  std::ranges::sort(tiles, [](const KeyTile& a, const KeyTile& b) {
    const auto rows = [](const KeyTile& tile) { return tile.stop - tile.first(); };
    return rows(a) != rows(b) ? rows(a) > rows(b) : std::less()(a.progress, b.progress);
  });
  return tiles;
}

/// ⟨cotangent, out⟩ of every row, and gradients of queries that are 0 so far.
void begin_queries(Context& context, const AttentionResult& result, const Tensor& deltas, const Tensor& gradient) {
  const std::int64_t heads = gradient.size(1), h = gradient.size(2);
  const std::span<const float> out = result.out.span<float>(), cotangent = result.cotangent.span<float>();
  const std::span<float> to = deltas.span<float>(), query = gradient.span<float>();
  parallel_blocks(context, gradient.size(0) * heads, rows_per_block(h), [&](std::int64_t begin, std::int64_t end, int) {
    std::fill(query.begin() + begin * h, query.begin() + end * h, 0.0f);
    for (std::int64_t row = begin; row < end; ++row)
      to[static_cast<std::size_t>(row)] = delta_of(out.data() + row * h, cotangent.data() + row * h, h);
  });
}

}  // namespace

void causal_attention_backward(Context& context, const AttentionInput& input, const AttentionResult& result,
                               Linearisation linearisation, const AttentionGradient& gradient) {
  const Heads heads{input.query.size(1), input.key.size(1), input.query.size(2)};
  const std::span<const std::int32_t> at = input.offsets.span<std::int32_t>();
  require_sequences(at, input.query.size(0));
  if (input.query.elements() == 0) return;
  const Buffer deltas(context.device(), DType::kFloat32, {input.query.size(0), heads.queries});
  if (linearisation == Linearisation::kExact) begin_queries(context, result, deltas.tensor(), gradient.query);
  std::vector<Progress> progress;
  const std::vector<KeyTile> tiles = key_tiles(at, heads.groups, progress);
  const Backward backward(heads, linearisation, gradient);
  // Whoever waits for a tile before must know it taken: tickets are drawn in order, whatever the schedule of the loop.
  std::atomic<std::size_t> next{0};
  parallel_for(context, static_cast<std::int64_t>(tiles.size()), [&](std::int64_t, int thread) {
    const Workspace work(context, thread, heads);
    const KeyTile& tile = tiles[next.fetch_add(1, std::memory_order_relaxed)];
    backward.run(Job(input, result, deltas.tensor(), heads, tile.group), tile, work);
  });
}

}  // namespace tadapt::cpu

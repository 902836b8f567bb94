#include "runtime/capture/row_feed.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "data/delta_statistics.h"
#include "data/row_codec.h"

namespace tadapt {
namespace {

constexpr RowKind kKinds[] = {RowKind::kInput, RowKind::kDelta};

std::span<const float> row_of(const ShardRows& rows, std::size_t row, std::size_t layer, RowKind kind) {
  const ShardRows::Layer& both = rows.layers[layer];
  const Tensor& values = kind == RowKind::kInput ? both.mlp_in : both.mlp_delta;
  const auto width = static_cast<std::size_t>(values.size(1));
  return std::span<const float>(values.span<float>()).subspan(row * width, width);
}

}  // namespace

RowFeed::RowFeed(FeedParts parts)
    : parts_(std::move(parts)),
      layers_(parts_.grid.layers_of_block(parts_.grid.block_of(parts_.world.rank()))),
      schedule_(parts_.plan),
      pass_(parts_.context, parts_.pair, parts_.plan, most_batch_rows(parts_.plan)) {}

std::size_t RowFeed::row_bytes() const { return static_cast<std::size_t>(width()) * bytes_per_element(row_dtype()); }

CaptureOutcome RowFeed::for_each_round(std::int64_t begin, std::int64_t end,
                                       const std::function<void(const Round&)>& visit, const StopRequested& stop) {
  const std::vector<RowBatch> batches = schedule_.batches(begin, end, parts_.world.size());
  const auto ranks = static_cast<std::size_t>(parts_.world.size());
  const auto rank = static_cast<std::size_t>(parts_.world.rank());
  for (std::size_t first = 0; first < batches.size(); first += ranks) {
    const auto round = std::span(batches).subspan(first, std::min(ranks, batches.size() - first));
    pass_.begin(rank < round.size() ? round[rank].parts : std::vector<SequenceRows>());
    pass_.run_batch(parts_.tokens, std::numeric_limits<std::int64_t>::max());
    visit({round, pass_.rows()});
    parts_.alive();
    if (!stop) continue;
    const double asked = stop() ? 1.0 : 0.0;
    if (std::ranges::max(parts_.world.all_gather(std::span(&asked, 1), "stop while streaming")) > 0.0)
      return CaptureOutcome::kStopped;
  }
  return CaptureOutcome::kDone;
}

void RowFeed::encode(const ShardRows& rows, std::size_t row, std::size_t layer, RowKind kind, std::byte* to) const {
  const CacheFormat& format = parts_.plan.format;
  const EncodedRow encoded = encode_delivered_row(row_of(rows, row, layer, kind), format.row_dtype, to);
  if (std::isfinite(encoded.error_square)) return;
  throw NonFiniteError("stream: layer {}: {} at position {} of sequence {} does not fit {}", format.layers[layer],
                       kind == RowKind::kInput ? "mlp_in" : "mlp_delta", rows.positions[row], rows.sequences[row],
                       name(format.row_dtype));
}

/// For each rank the rows of this one's batch that it owns: row after row, layer after layer, x and Δ.
std::vector<std::string> RowFeed::addressed(const Round& round, std::int64_t begin, std::span<const int> owners) const {
  const ProcessGrid& grid = parts_.grid;
  const auto rank = static_cast<std::size_t>(parts_.world.rank());
  std::vector<std::string> texts(static_cast<std::size_t>(parts_.world.size()));
  if (rank >= round.batches.size()) return texts;
  const auto mine =
      owners.subspan(static_cast<std::size_t>(round.batches[rank].begin - begin), round.mine.positions.size());
  std::size_t layer = 0;
  for (int block = 0; block < grid.blocks(); ++block) {
    const std::size_t end_layer = layer + grid.layers_of_block(block).size();
    const std::size_t bytes = (end_layer - layer) * std::size(kKinds) * row_bytes();
    std::vector<std::byte*> ends;
    for (int member = 0; member < grid.data_parallel(); ++member) {
      std::string& text = texts[static_cast<std::size_t>(grid.rank_of(block, member))];
      text.resize(static_cast<std::size_t>(std::ranges::count(mine, member)) * bytes);
      ends.push_back(reinterpret_cast<std::byte*>(text.data()));
    }
    for (std::size_t row = 0; row < mine.size(); ++row) {
      if (mine[row] == kNobody) continue;
      std::byte*& to = ends[static_cast<std::size_t>(mine[row])];
      for (std::size_t one = layer; one < end_layer; ++one) {
        for (const RowKind kind : kKinds) {
          encode(round.mine, row, one, kind, to);
          to += row_bytes();
        }
      }
    }
    layer = end_layer;
  }
  return texts;
}

CaptureOutcome RowFeed::feed(std::int64_t begin, std::span<const int> owners, const Destination& destination,
                             const StopRequested& stop) {
  const auto end = begin + static_cast<std::int64_t>(owners.size());
  const int members = parts_.grid.data_parallel();
  require_shape(std::ranges::all_of(owners, [&](int owner) { return kNobody <= owner && owner < members; }),
                "rows [{}, {}): an owner is not one of {} members", begin, end, members);
  const auto visit = [&](const Round& round) {
    const std::vector<std::string> texts =
        parts_.world.all_to_all_text(addressed(round, begin, owners), "streamed rows");
    for (std::size_t from = 0; from < round.batches.size(); ++from) {
      const char* at = texts[from].data();
      for (std::int64_t row = round.batches[from].begin; row < round.batches[from].end; ++row) {
        if (owners[static_cast<std::size_t>(row - begin)] != member()) continue;
        for (std::size_t layer = 0; layer < layers_.size(); ++layer) {
          for (const RowKind kind : kKinds) {
            std::memcpy(destination(row, layer, kind), at, row_bytes());
            at += row_bytes();
          }
        }
      }
    }
  };
  return for_each_round(begin, end, visit, stop);
}

std::optional<std::vector<double>> RowFeed::scale_squares(const StopRequested& stop) {
  const std::size_t layers = parts_.plan.format.layers.size();
  const std::int64_t rows = std::min(parts_.plan.rows, kScaleRows);
  std::vector<std::vector<double>> norms(layers);  // of the rows so far
  const auto visit = [&](const Round& round) {
    std::vector<double> mine;
    for (std::size_t layer = 0; layer < layers; ++layer)
      for (std::size_t row = 0; row < round.mine.positions.size(); ++row)
        mine.push_back(square_norm(row_of(round.mine, row, layer, RowKind::kDelta)));
    const std::string_view bytes(reinterpret_cast<const char*>(mine.data()), mine.size() * sizeof(double));
    for (const std::string& text : parts_.world.all_gather_text(bytes, "norms of streamed rows")) {
      const std::size_t of_layer = text.size() / layers;
      for (std::size_t layer = 0; layer < layers; ++layer) {
        const std::size_t known = norms[layer].size();
        norms[layer].resize(known + of_layer / sizeof(double));
        if (of_layer > 0) std::memcpy(norms[layer].data() + known, text.data() + layer * of_layer, of_layer);
      }
    }
  };
  if (for_each_round(0, rows, visit, stop) == CaptureOutcome::kStopped) return std::nullopt;
  std::vector<double> squares;
  for (const std::vector<double>& of_layer : norms) squares.push_back(delta_scale_square(of_layer));
  return squares;
}

std::uint64_t feed_memory_bytes(const CacheFormat& format, std::int64_t most_batch_rows) {
  const std::uint64_t numbers =
      2 * format.layers.size() * static_cast<std::uint64_t>(format.width) * static_cast<std::uint64_t>(most_batch_rows);
  return numbers * (sizeof(float) + 2 * bytes_per_element(delivered_dtype(format)));
}

}  // namespace tadapt
